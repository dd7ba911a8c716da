#!/usr/bin/env bash
# What a stranger does in the first ten minutes: clones, and copies the lines of README in their order. Any error ends it.
#   tests/stranger.sh            short form: a few steps of training and dynamics, the same lines
#   FULL=1 tests/stranger.sh     the lines as they stand
#   HOWTO=1 ...                  then the lines of the pages in docs/howto, each page in a folder of its own
#   INSTALLED=1 ...              with the remul-md and python of this shell, without `make install`
#   DRY=1 ...                    print the lines
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# The n-th block of README or another page, without its fences.
block() { awk -v n="$1" '/^```/ { inside = !inside; if (inside) k++; next } inside && k == n' "${2:-$root/README.md}"; }

# Its commands, without prompt and comment.
commands() { block "$1" | sed -n 's/^\$ //p' | sed 's/ *#.*$//'; }

short() {
  if [ -n "${FULL:-}" ]; then echo "$1"; return; fi
  case "$1" in
    # Rounds of labels by PBE take hours, and there is no short form that shows anything.
    *"improve "* | *BETTER*) echo "true # $1" ;;
    *" md RUN/"*) echo "$1 --equilibrate-ps 0 --length-ps 0.01" ;;  # barely trained, it would not hold longer
    *" md "* | *" compare "*@* | *" compare "*.pt*) echo "$1 --equilibrate-ps 0.02 --length-ps 0.05" ;;
    *" train "*) echo "$1 --set train.n_steps=6 --set train.warmup_steps=2 --set data.n_train=40 --set data.n_validation=10" ;;
    *" distill "*) echo "$1 --n-frames 40 --n-replicas 4 --equilibrate-ps 0.01 --set train.n_steps=6 --set train.warmup_steps=2" ;;
    *" label "*) echo "$1 --every 16" ;;
    *" audit "*) echo "$1 --only translation" ;;
    *" evaluate "*) echo "$1 --n-draws 2" ;;
    *) echo "$1" ;;
  esac
}

n_run=0
run() {
  [ -z "${DRY:-}" ] || { echo "$1"; return; }
  echo "== $1"
  local before=$SECONDS
  eval "$1" < /dev/null
  echo "== $((SECONDS - before)) s"
  n_run=$((n_run + 1))
}

if [ -z "${DRY:-}" ]; then
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  git clone -q "$root" "$work/remul-md"
  root=$work/remul-md
  cd "$root"
fi
[ -n "${INSTALLED:-}" ] || while read -r line; do run "$line"; done <<< "$(commands 1)"
run "python -c $(printf %q "$(block 2)")"
while read -r line; do run "$(short "$line")"; done <<< "$(commands 3)"
[ -n "${DRY:-}" ] || { test -s report.html && test -s figures.json && echo "README: $n_run lines ran without an error"; }

# Every block of the how-tos in its order: Python as it stands, commands as above.
[ -n "${HOWTO:-}" ] || exit 0
for page in "$root"/docs/howto/*.md; do
  [ -n "${DRY:-}" ] || { mkdir -p "howto/$(basename "$page" .md)"; cd "howto/$(basename "$page" .md)"; ln -sfn "$root/data" data; }
  n=0
  while read -r kind; do
    n=$((n + 1))
    case "$kind" in
      python) run "python -c $(printf %q "$(block $n "$page")")" ;;
      console) while read -r line; do run "$(short "$line")"; done <<< "$(block $n "$page" | sed -n 's/^\$ //p')" ;;
    esac
  done <<< "$(awk '/^```/ { inside = !inside; if (inside) print substr($0, 4) }' "$page")"
  [ -n "${DRY:-}" ] || cd "$root"
done
[ -n "${DRY:-}" ] || echo "how-tos: all lines ran without an error"
