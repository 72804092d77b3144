"""What ``benchmarks/attack.py`` attacks, part by part."""
