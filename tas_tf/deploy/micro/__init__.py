"""Files for microcontrollers: C arrays of int8 networks, their operators and the memory that they need."""
