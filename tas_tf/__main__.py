"""Lets `python -m tas_tf` do what the console command `tas-tf` does."""

from tas_tf.cli.main import main

if __name__ == "__main__":
    main()
