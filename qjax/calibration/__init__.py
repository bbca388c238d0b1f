"""Range estimators, one file each: how an affine activation quantizer finds its range."""
