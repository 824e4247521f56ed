"""Networks that are written here, by what is special about them; all are small."""

from benchmarks.networks.catalogue import Catalogue
from benchmarks.networks.zoo.attention import ATTENTION
from benchmarks.networks.zoo.branches import BRANCHES
from benchmarks.networks.zoo.keras_ways import KERAS_WAYS
from benchmarks.networks.zoo.mobile import MOBILE
from benchmarks.networks.zoo.operations import OPERATIONS
from benchmarks.networks.zoo.pixels import PIXELS
from benchmarks.networks.zoo.residual import RESIDUAL
from benchmarks.networks.zoo.several import SEVERAL
from benchmarks.networks.zoo.tasks import TASKS

ZOO = Catalogue()
for _part in (RESIDUAL, BRANCHES, MOBILE, ATTENTION, OPERATIONS, PIXELS, TASKS, SEVERAL, KERAS_WAYS):
    ZOO.update(_part)
