# What Python's huggingface_hub makes of a repository: offline from the cache alone, or from the hub. Prints the files of the
# snapshot with their SHA-256, and what scanning the cache finds wrong.
import hashlib, os, sys

from huggingface_hub import hf_hub_download, scan_cache_dir, snapshot_download

repo = sys.argv[1]
folder = snapshot_download(repo, ignore_patterns=["*.bin"])
for name in sorted(os.listdir(folder)):
    path = hf_hub_download(repo, name)
    assert path == os.path.join(folder, name), path
    with open(path, "rb") as f:
        print(name, hashlib.sha256(f.read()).hexdigest())
for warning in scan_cache_dir().warnings:
    print("warning", warning)
