"""Lists the packages of the wheel, which a mapping in pyproject.toml keeps setuptools from finding by itself."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["tas_tf*"]), "tas_tf.trainers", "tas_tf.export"])
