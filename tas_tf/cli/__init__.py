"""What the commands share: flags, help, errors and exit codes. Nothing else in the library knows of flags."""
