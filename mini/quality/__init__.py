"""How good polyvec-mini is, on documents that it has not seen.

python -m mini.quality                       the table of mini/README.md and its JSON, in minutes
python -m mini.quality --export DIR          the held-out documents as a dataset for `polyvec bench quality`
"""
