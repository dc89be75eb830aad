#!/usr/bin/env bash
# The CPU's checks and figures on two cores of a larger Linux machine, which needs no Go:
#
#   scripts/bench_two_cores.sh build DIR      compile into DIR, on a machine with Go
#   scripts/bench_two_cores.sh check DIR      every path against the conformance table and the reference data
#   scripts/bench_two_cores.sh kernels DIR    the kernels' speed
#   scripts/bench_two_cores.sh phi-2 DIR      quartet bench --random phi-2; writes 7 GB into TMPDIR, removed afterwards
#
# QUARTET_CPU=avx2 has phi-2 use these kernels instead of the fastest.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# = 2 ] || { sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 2; }
what=$1
mkdir -p "$2"
dir=$(cd "$2" && pwd)

# two_cores names two logical processors of different cores.
two_cores() {
    local first siblings
    first=$(taskset -cp $$ | sed 's/.*: //; s/[-,].*//')
    siblings=$(cat "/sys/devices/system/cpu/cpu$first/topology/thread_siblings_list" 2>/dev/null || echo "$first")
    for i in $(seq $((first + 1)) $((first + 64))); do
        case ",${siblings//-/,}," in *",$i,"*) continue ;; esac
        taskset -c "$i" true 2>/dev/null && { echo "$first,$i"; return; }
    done
    echo "no second core" >&2
    exit 1
}

case $what in
build)
    CGO_ENABLED=0 go build -o "$dir/quartet" .
    CGO_ENABLED=0 go test -c -o "$dir/cpu.test" ./kernels/cpu
    ;;
check)
    failed=
    (cd kernels/cpu && "$dir/cpu.test")
    paths="plain avx2 avx512"
    ! grep -q amx_bf16 /proc/cpuinfo || paths+=" amx"
    for path in $paths; do
        echo "golden, $path"
        QUARTET_CPU=$path "$dir/quartet" golden testdata/golden | grep -v ' ok ' || failed=$path
    done
    [ -z "$failed" ] || { echo "not all met: $failed"; exit 1; }
    ;;
kernels)
    grep -m1 'model name' /proc/cpuinfo
    cd kernels/cpu
    taskset -c "$(two_cores)" "$dir/cpu.test" -test.run '^$' -test.benchtime 300ms -test.bench 'Peak|Bandwidth|MatrixVector|QuantizeNF4|Attention'
    for bench in 'Linear$/././2560x10240/T(1|4|8|16|64|256)$' 'LinearBackward/./2560x10240'; do
        taskset -c "$(two_cores)" "$dir/cpu.test" -test.run '^$' -test.benchtime 200ms -test.bench "$bench"
    done
    ;;
phi-2)
    taskset -c "$(two_cores)" "$dir/quartet" bench --random phi-2
    ;;
esac
