#!/usr/bin/env bash
# Arguments are passed on to every command (epochs=10, hydra/launcher=joblib); SEEDS=0 runs one seed.
set -eu
seeds=${SEEDS:-0,1,2}

python -m qjax.train -m +experiment=float data=fashion_mnist model=lenet5 "seed=$seeds" "$@"

for experiment in minmax_w8a8 dorefa_w4a4 pact_w4a4 lsq_w4a4; do
  for bits in 2 3 4 8; do
    python -m qjax.train -m "+experiment=$experiment" data=fashion_mnist model=lenet5 \
      recipe=ends_8bit "w_bits=$bits" "a_bits=$bits" "seed=$seeds" "$@"
  done
done
