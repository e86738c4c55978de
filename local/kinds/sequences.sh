# shellcheck shell=bash disable=SC2154,SC2034
# Sourced by run.sh: stages 0 to 3 of sequences, as of drawings; see plateau/data/sequences.py.
. local/kinds/corpus.sh
made_by=0 sequences=$data
. local/kinds/statistics.sh
