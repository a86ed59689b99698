#!/usr/bin/python3
"""big-image.py OUTPUT MEGABYTES: an OCI layout archive of four gzip layers, about MEGABYTES compressed in all, of this machine's own files.
Prints the megabytes that it really has. Real files, because random ones do not compress and zeros compress too well."""
import gzip
import hashlib
import io
import json
import os
import sys
import tarfile

output, wanted = sys.argv[1], int(sys.argv[2])
layers_wanted = 4
files = []
for top in ("/usr/bin", "/usr/lib", "/usr/share"):
    for directory, _, names in sorted(os.walk(top)):
        for name in sorted(names):
            path = os.path.join(directory, name)
            if os.path.isfile(path) and not os.path.islink(path) and 0 < os.path.getsize(path) < 20_000_000:
                files.append(path)

blobs = {}


def blob(data):
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    blobs[digest] = data
    return digest


position = 0
diff_ids, descriptors, total = [], [], 0
for layer in range(layers_wanted):
    compressed = io.BytesIO()
    packer = gzip.GzipFile(fileobj=compressed, mode="wb", compresslevel=6, mtime=0)
    digest = hashlib.sha256()

    class Tee:
        def write(self, data):
            digest.update(data)
            packer.write(data)

    tar = tarfile.open(fileobj=Tee(), mode="w|", format=tarfile.PAX_FORMAT)
    while position < len(files) and compressed.tell() < wanted * 1_000_000 / layers_wanted:
        tar.add(files[position], arcname="layer%d%s" % (layer, files[position]))
        position += 1
    tar.close()
    packer.close()
    data = compressed.getvalue()
    total += len(data)
    diff_ids.append("sha256:" + digest.hexdigest())
    descriptors.append({"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": blob(data), "size": len(data)})

config = json.dumps({"architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"]}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}).encode()
manifest = json.dumps({
    "schemaVersion": 2,
    "mediaType": "application/vnd.oci.image.manifest.v1+json",
    "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": blob(config), "size": len(config)},
    "layers": descriptors,
}).encode()
index = json.dumps({
    "schemaVersion": 2,
    "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": blob(manifest), "size": len(manifest)}],
}).encode()
with tarfile.open(output, "w") as archive:
    for name, data in [("oci-layout", b'{"imageLayoutVersion":"1.0.0"}'), ("index.json", index)] + [("blobs/" + d.replace(":", "/"), b) for d, b in blobs.items()]:
        entry = tarfile.TarInfo(name)
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
print(round(total / 1_000_000))
