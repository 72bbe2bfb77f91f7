"""What fsseg needs of the machine: files, locks, signals, processes, devices, generators. It knows no scan."""
