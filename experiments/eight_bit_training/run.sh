#!/usr/bin/env bash
# The runs of jobs.txt, one a core. Arguments are passed on: --workers 4, --set update:seed=0, --minutes 60 (see --help).
set -eu
cd "$(dirname "$0")/../.."
python experiments/run_batch.py experiments/eight_bit_training/jobs.txt "$@"
