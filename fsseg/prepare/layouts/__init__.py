"""How raw data sets lie on disk, one module each: `plan` says which cases there are, `make` makes one of them."""
