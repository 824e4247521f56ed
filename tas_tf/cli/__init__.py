"""What all commands share: flags, help, errors and exit codes. The rest of the library doesn't know flags."""
