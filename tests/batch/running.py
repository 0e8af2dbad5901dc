"""`polyvec embed` with an engine that needs no model, as a process that a test can end.

python -m tests.batch.running --poison WORD --delay-s 0.1 -- SOURCE --model MODEL --output OUT ...
"""

import argparse
import sys
from functools import partial

import serving.cluster.batch
from polyvec.cli import main
from tests.batch.engines import Trouble, troubled

if __name__ == "__main__":
    at = sys.argv.index("--")
    parser = argparse.ArgumentParser()
    parser.add_argument("--delay-s", type=float, default=0.0)
    options = parser.parse_args(sys.argv[1:at])
    start = troubled(Trouble(delay_s=options.delay_s))
    embed_corpus = serving.cluster.batch.embed_corpus
    serving.cluster.batch.embed_corpus = partial(embed_corpus, start=start)
    sys.argv[1:] = ["embed", *sys.argv[at + 1 :]]
    main()
