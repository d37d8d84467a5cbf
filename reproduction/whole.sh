#!/usr/bin/env bash
# Train the published grids in a separate folder, from the cheapest architectures to the most expensive ones.
#
#   nice -n 19 reproduction/whole.sh FOLDER [options of `psa sweep`]
#
# The published bundles are first copied to FOLDER/results, so that only trials missing in them are trained. The
# script can be stopped at any moment with Ctrl-C or SIGTERM; start it again to resume. To add the finished trials
# to the published bundles of plain and residual networks:
#
#   psa bundle results/published/simplemlp.parquet --from FOLDER/results --grid reproduction/simplemlp.toml
#   psa bundle results/published/resmlp.parquet --from FOLDER/results --grid reproduction/resmlp.toml
set -euo pipefail

folder=${1:?usage: reproduction/whole.sh FOLDER [options of psa sweep]}
shift
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# All 98 architectures in groups of rising cost, each with enough packs to keep every core busy.
groups=(
    '1*1,2*1,1*2,2*2,4*1,1*4,4*2,3*3,2*4,4*4,8*1,1*8,8*2,5*5,2*8,6*6,7*7,8*8,16*1,1*16,16*2,2*16,9*9,10*10,17*4'
    '4*17,11*11,12*12,13*13,14*14,30*2,32*1,1*32,29*4,2*30,15*15'
    '4*29,16*16,17*17,18*18,19*19,20*20,47*4,21*21'
    '22*22,4*47,23*23,59*2,64*1,24*24'
    '1*64,2*59,25*25,26*26,27*27'
    '76*4,28*28,29*29,30*30'
    '31*31,4*76,32*32,115*2'
    '35*35,119*4,128*1'
    '1*128,2*115,4*119'
    '185*4,44*44'
    '214*2,256*1'
    '1*256,2*214'
    '280*4,4*185'
    '56*56,354*2'
    '425*4,512*1'
    '1*512,2*354'
    '4*280,588*2'
    '71*71,632*4'
    '939*2,1024*1'
    '1*1024,2*588'
    '4*425,91*91'
    '2048*1,1*2048'
    '2*939,115*115'
    '4*632'
)

# A stop reaches the sweep at work, which saves what it has; none begins after it.
stop=
child=
trap 'stop=143; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || :' TERM INT

# Run one command and wait for its end, whatever signals come meanwhile.
run() {
    [ -z "$stop" ] || exit "$stop"
    "$@" &
    child=$!
    [ -z "$stop" ] || kill -TERM "$child" 2>/dev/null || : # it came before the command had a number
    while :; do
        code=0
        wait "$child" || code=$?
        [ "$code" -gt 128 ] && kill -0 "$child" 2>/dev/null || break # a signal ended the wait, not the command
    done
    child=
    [ -z "$stop" ] || exit "$stop"
}

# Run one sweep. Trials that failed (exit code 1) are tried again when the script is started again.
sweep() {
    run psa sweep "$here/$1" --only "$2" --keep-weights none \
        --model-dir "$folder/models" --results-dir "$folder/results" "${@:3}"
    [ "$code" -le 1 ] || exit "$code"
}

mkdir -p "$folder/results"
for bundle in "$here"/../results/published/*.parquet; do
    [ -f "$bundle" ] || continue
    run psa bundle "$folder/results/${bundle##*/}" --from "$bundle"
    [ "$code" -eq 0 ] || exit "$code"
done

# Two seeds of both families come before more seeds of either.
for seeds in 0,1 2..9; do
    for grid in simplemlp.toml resmlp.toml; do
        for group in "${groups[@]}"; do
            sweep "$grid" "arch=$group seed=$seeds" "$@"
        done
    done
done
