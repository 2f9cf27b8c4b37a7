#!/bin/sh
# Write the digest of each image of docker-compose.yml after its tag, so that a moved tag changes nothing:
#     deploy/pin-images.sh > docker-compose.pinned.yml && docker compose -f docker-compose.pinned.yml up
# Needs docker with buildx, and the network. It was never run where this repository is tested: there is no container engine.
set -eu
file="${1:-docker-compose.yml}"
pinned="$(cat "$file")"
for image in $(sed -n 's/^ *image: *\([^ ]*\).*$/\1/p' "$file" | grep -v -e ':local$' -e '@sha256:' | sort -u); do
    digest="$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}')"
    case "$digest" in
        sha256:*) ;;
        *) echo "pin-images: no digest for $image" >&2; exit 1 ;;
    esac
    pinned="$(printf '%s\n' "$pinned" | sed "s|image: $image\$|image: $image@$digest|")"
done
printf '%s\n' "$pinned"
