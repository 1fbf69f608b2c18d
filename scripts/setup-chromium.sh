#!/usr/bin/env bash
# Installs Chromium and its WebDriver, with which the tests open the pages that experiments write, unless both are
# there. Debian's packages need 400 MB.
set -euo pipefail

if [ -n "${CALM_NO_BROWSER:-}" ] || command -v chromedriver >/dev/null; then
  exit 0
fi
if ! command -v apt-get >/dev/null; then
  echo "error: the tests of pages need chromedriver: install Chrome or Chromium with it, or set CALM_NO_BROWSER=1" >&2
  exit 1
fi
as_root=()
if [ "$(id -u)" != 0 ]; then
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
  apt-get install -y -qq --no-install-recommends chromium chromium-driver fonts-dejavu-core >/dev/null
