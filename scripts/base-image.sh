#!/usr/bin/env bash
# Makes sure that the image the Dockerfile builds on is there. If it is not, it is pulled; and where no registry can
# be reached, an image of the same name is made from what this machine has: busybox, its CA certificates and its Go.
# Nothing to do when the image exists. `docker rmi golang:1.26` makes the next run start over.
set -euo pipefail
cd "$(dirname "$0")/.."

image=${GO_IMAGE:-golang:1.26}

scripts/need.sh docker
if docker image inspect "$image" >/dev/null 2>&1; then
	exit 0
fi

work=$(mktemp -d)
pull=
cleanup() {
	if [[ -n $pull ]]; then kill "$pull" 2>/dev/null || true; fi
	rm -rf "$work"
}
trap cleanup EXIT

# A registry that answers may take its time over the layers. One that does not is given up after 20 seconds, and not
# waited for as long as TCP would.
echo "base image: pulling $image"
timeout 1200 docker pull "$image" >"$work/pull.log" 2>&1 &
pull=$!
for ((i = 0; i < 40; i++)); do
	if ! kill -0 "$pull" 2>/dev/null; then break; fi
	if grep -q 'Pulling from' "$work/pull.log"; then
		i=-1
		break
	fi
	sleep 0.5
done
if ((i == 40)); then kill "$pull" 2>/dev/null || true; fi
if wait "$pull"; then
	exit 0
fi
pull=
if ((i < 0)); then # there is a registry, and it began to answer
	tail -n 3 "$work/pull.log" >&2
	exit 1
fi

echo "base image: no registry in reach ($(tail -n 1 "$work/pull.log")), making it from $(go env GOROOT) and busybox"
scripts/need.sh go busybox ca

root=$work/root
mkdir -p "$root"/{bin,etc/ssl/certs,go,root,usr/local}
mkdir -m 1777 "$root/tmp"
cp -L "$(command -v busybox)" "$root/bin/busybox"
for applet in $(busybox --list); do
	[[ $applet == busybox ]] || ln -s busybox "$root/bin/$applet"
done
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"

goroot=$(go env GOROOT)
{
	tar -C "$root" --owner=0 --group=0 -cf "$work/root.tar" .
	tar -C "$goroot" --owner=0 --group=0 -h --exclude=./test --exclude=./api --exclude=./doc --exclude='*/testdata' \
		--transform='s,^\.,./usr/local/go,' -cf "$work/go.tar" .
	tar -Af "$work/root.tar" "$work/go.tar"
}
docker import \
	--change 'ENV PATH=/go/bin:/usr/local/go/bin:/bin GOPATH=/go GOTOOLCHAIN=local' \
	--change 'WORKDIR /go' \
	--change 'CMD ["/bin/sh"]' \
	--message "made from $(go env GOVERSION) of the machine, no registry in reach" \
	"$work/root.tar" "$image" >/dev/null

# A busybox or a Go that is linked dynamically shows here, and not in the middle of a build.
if ! docker run --rm --network none "$image" go version; then
	docker rmi "$image" >/dev/null
	echo "base image: busybox and Go have to be statically linked: install busybox-static, and Go from https://go.dev/dl/" >&2
	exit 1
fi
