#!/usr/bin/env bash
# Installs what a build and its tests need (Debian 12), skipping what is there. Works as root or through sudo.
# docs/getting-started.md says what each package is for.
set -euo pipefail

packages=(
  g++ cmake ninja-build ccache pkg-config ca-certificates
  libopenblas-pthread-dev libtbb-dev libhwy-dev nlohmann-json3-dev libcli11-dev libfmt-dev zlib1g-dev
  libboost-dev libxxhash-dev catch2
)

missing=()
for package in "${packages[@]}" "$@"; do
  status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
  if [ "$status" != installed ]; then missing+=("$package"); fi
done
if [ ${#missing[@]} -eq 0 ]; then exit 0; fi

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "packages.sh: these packages are missing and neither root nor sudo is at hand: ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
echo "Installing ${missing[*]}"
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
