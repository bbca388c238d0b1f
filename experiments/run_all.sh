#!/usr/bin/env bash
# Every run behind the tables of this folder that a small network can answer, the most valuable first. Arguments are
# passed on to run_batch.py; on a machine with 16 cores and an accelerator
#
#   experiments/run_all.sh --workers 11 --gpu-workers 4 --minutes 9 --out records.tar.gz
#
# and on cores alone, where the one-recipe table takes most of the time (drop --set for its five epochs),
#
#   experiments/run_all.sh --workers 15 --set one_recipe:epochs=2 --minutes 9 --out records.tar.gz
#
# Left to their own commands: ResNets on CIFAR-10 (experiments/*/run.sh, experiments/size/jobs_cifar10.txt).
set -eu
cd "$(dirname "$0")/.."
python experiments/run_batch.py \
  experiments/one_recipe/jobs.txt experiments/wage/jobs.txt experiments/eight_bit_training/jobs.txt \
  experiments/fqn/jobs.txt experiments/dorefa/jobs.txt experiments/tanh_or_clip/jobs.txt \
  experiments/ptq_or_qat/jobs.txt experiments/elq/jobs.txt experiments/size/jobs.txt \
  experiments/signed_inputs/jobs.txt --gpu-groups one_recipe,wage_full,size "$@"
