"""What ``textgym`` takes on the command line, a file a command; heavy modules are imported inside the functions."""
