"""How much of a volume is kept: errors, structural similarity, Dice, centrelines."""
