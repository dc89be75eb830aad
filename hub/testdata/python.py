# What Python's huggingface_hub makes of a repository. With a folder as the second argument it uploads that first, into a
# private repository that it makes where there is none. Then it downloads, or offline takes the cache alone, and prints the files of
# the snapshot with their SHA-256, and what scanning the cache finds wrong.
import hashlib, os, sys

from huggingface_hub import HfApi, hf_hub_download, scan_cache_dir, snapshot_download

repo = sys.argv[1]
if len(sys.argv) > 2:
    HfApi().create_repo(repo, private=True, exist_ok=True)
    HfApi().upload_folder(repo_id=repo, folder_path=sys.argv[2])
folder = snapshot_download(repo, ignore_patterns=["*.bin"])
for name in sorted(os.path.relpath(os.path.join(at, f), folder) for at, _, files in os.walk(folder) for f in files):
    path = hf_hub_download(repo, name)
    assert path == os.path.join(folder, name), path
    with open(path, "rb") as f:
        print(name, hashlib.sha256(f.read()).hexdigest())
for warning in scan_cache_dir().warnings:
    print("warning", warning)
