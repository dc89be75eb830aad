#!/usr/bin/env bash
# A user of the workbench, played in tmux: fresh folder, demo, all stages, chat, rerun of lora, cancel, rerun, results, export, leave, come back.
# Usage: scripts/robot.sh QUARTET
set -euo pipefail
quartet=$(realpath "$1")
dir=$(mktemp -d)
mux() { tmux -L "quartet-robot-$$" "$@"; }
trap 'mux kill-server 2>/dev/null || true; "$quartet" stop -C "$dir/quartet-demo" >/dev/null || true; rm -rf "$dir"' EXIT

# sees TEXT [SECONDS]: the screen shows it within so long.
sees() {
  local end=$((SECONDS + ${2:-5}))
  until mux capture-pane -p | grep -qF -- "$1"; do
    ((SECONDS < end)) || { echo "the screen never showed: $1"; mux capture-pane -p; exit 1; }
    sleep 0.1
  done
  echo "saw: $1"
}
opens() { mux new-session -d -x 120 -y 40 -c "$1" "$quartet"; }

opens "$dir"
sees "There is no config.toml"
mux send-keys d
sees "runs lora" 30
sees "idle" 90
mux send-keys t
mux send-keys -l "What kind of animal is a bee?"
mux send-keys Enter
sees "A bee is an insect." 20
mux send-keys 3 r
sees "Rerun lora?"
mux send-keys y
sees "runs lora"
sees "loss " 10
mux send-keys c
sees "interrupted: training stopped" 10
mux send-keys r
sees "Rerun lora?"
mux send-keys y
sees "runs lora"
sees "idle" 60
mux send-keys e
sees "KL to base"
mux send-keys t x
sees "wrote "
mux send-keys q
sleep 1
opens "$dir/quartet-demo"
sees "idle"
sees "fresh"
echo "all seen"
