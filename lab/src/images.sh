# Runs inside a new root file system: makes two images and the storage of docker-registry, which
# serves them. Nothing is pushed, so neither podman nor the registry has to run for it.
set -eu

work=$(mktemp -d)
storage=/srv/images/docker/registry/v2

# Both images are one layer: a static busybox, and a page for its httpd.
mkdir -p "$work/layer/bin" "$work/layer/www" "$work/layer/tmp" "$work/layer/etc"
cp /bin/busybox "$work/layer/bin/"
for applet in cat echo env hostname httpd id ls mkdir sh sleep touch wget; do
    ln -s busybox "$work/layer/bin/$applet"
done
echo '<h1>Welcome to nginx!</h1>' > "$work/layer/www/index.html"
echo 'root:x:0:0:root:/:/bin/sh' > "$work/layer/etc/passwd"
tar --create --file="$work/layer.tar" --directory="$work/layer" .

# Stores a file under its digest, and prints that.
blob() {
    digest=$(sha256sum < "$1" | cut -c 1-64)
    place=$storage/blobs/sha256/$(echo "$digest" | cut -c 1-2)/$digest
    mkdir -p "$place"
    cp "$1" "$place/data"
    echo "$digest"
}

# Lets a path of the registry name a digest.
link() {
    mkdir -p "$1"
    printf 'sha256:%s' "$2" > "$1/link"
}

# Makes the image library/$1:latest, which runs the JSON list of words $2.
image() {
    repository=$storage/repositories/library/$1
    layer=$(blob "$work/layer.tar")
    printf '{"architecture":"%s","os":"linux","config":{"Env":["PATH=/bin"],"Cmd":%s},"rootfs":{"type":"layers","diff_ids":["sha256:%s"]}}' \
        "$(dpkg --print-architecture)" "$2" "$layer" > "$work/config"
    config=$(blob "$work/config")
    printf '{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:%s","size":%s},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"sha256:%s","size":%s}]}' \
        "$config" "$(stat --format=%s "$work/config")" \
        "$layer" "$(stat --format=%s "$work/layer.tar")" > "$work/manifest"
    manifest=$(blob "$work/manifest")
    link "$repository/_layers/sha256/$layer" "$layer"
    link "$repository/_layers/sha256/$config" "$config"
    link "$repository/_manifests/revisions/sha256/$manifest" "$manifest"
    link "$repository/_manifests/tags/latest/current" "$manifest"
    link "$repository/_manifests/tags/latest/index/sha256/$manifest" "$manifest"
}

image busybox '["sh"]'
# As PID 1 of a container httpd would ignore SIGTERM, which nginx obeys.
image nginx '["sh","-c","trap \"exit 0\" TERM INT QUIT; httpd -f -p 80 -h /www & wait"]'
rm -r "$work"
