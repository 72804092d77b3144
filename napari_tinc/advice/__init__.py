"""How small a volume may become."""
