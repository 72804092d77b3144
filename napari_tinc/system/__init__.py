"""What the program needs of the machine: threads, forks, working folders, files that are written whole."""
