#!/usr/bin/env bash
# Arguments are passed on to every command, e.g. hydra/launcher=joblib or seed=0.
set -eu

for bits in 2 3 4 8; do
  for experiment in minmax_w8a8 dorefa_w4a4 pact_w4a4 lsq_w4a4; do
    python -m qjax.train -m "+experiment=$experiment" data=fashion_mnist model=lenet5 \
      recipe=ends_8bit "w_bits=$bits" "a_bits=$bits" seed=0,1,2 "$@"
  done
done
