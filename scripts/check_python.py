"""Loads the folders that Quartet writes with the Python libraries and compares their logits with Quartet's own.

With Go, on any machine (20 s; the tiny Phi in the program, no network):

    quartet demo --foreground check-demo
    go run ./scripts/logits check-demo check-folders

With torch, transformers, peft (and bitsandbytes, where there is one), after copying check-folders and this file there:

    python3 check_python.py check-folders

One line for each comparison: the greatest difference of a logit, over all positions of all prompts, and its limit. The
adapter is loaded by PEFT on the base; it is merged by PEFT too, and held against the folder that `quartet convert` merged.
The 4-bit folders are loaded by transformers with bitsandbytes. Without bitsandbytes their tensors are decoded here, from
the names and the quant-state that bitsandbytes reads, and put into a Phi of transformers; what remains then unchecked is
only whether bitsandbytes takes them, which the last line says.
"""
import json
import os
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
import peft
import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

try:
    import bitsandbytes
except ImportError:
    bitsandbytes = None
transformers.logging.set_verbosity_error()
warnings.filterwarnings("error", message=".*adapter keys.*")  # PEFT only warns of an adapter whose tensors it does not find
root = sys.argv[1]
path = os.path.join(root, "logits.safetensors")
ours = load_file(path)
with safe_open(path, "pt") as f:
    prompts = json.loads(f.metadata()["prompts"])
device = "cuda" if torch.cuda.is_available() and bitsandbytes else "cpu"
failed = 0


def row(name, difference, limit, note=""):
    global failed
    ok = difference <= limit
    failed += not ok
    print(f"{name:44} {difference:10.2e} {limit:8.0e}  {'ok' if ok else 'FAILED'}  {note}")


def folder(name):
    return os.path.join(root, name)


def load(name, dtype=torch.float32):
    m, info = AutoModelForCausalLM.from_pretrained(folder(name), dtype=dtype, device_map=device if device != "cpu" else None, output_loading_info=True)
    info = info if isinstance(info, dict) else vars(info)
    wrong = {k: v for k, v in info.items() if v and k in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")}
    assert not wrong, f"{name}: {wrong}"
    return m.eval()


def logits(m, i):
    with torch.no_grad():
        return m(ours[f"ids.{i}"].long()[None].to(device)).logits[0].float().cpu()


def compare(title, m, name, limit, note=""):
    apart = torch.stack([(logits(m, i) - ours[f"{name}.{i}"]).abs().max() for i in range(len(prompts))])
    row(title, float(apart.max()), limit, note)  # a NaN is no less than the limit


def decode(name):
    """The tensors of a 4-bit folder in fp32, its NF4 weights decoded as bitsandbytes does: rounded once to their type."""
    tensors, state, parts = load_file(os.path.join(folder(name), "model.safetensors")), {}, (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
    for key in [k for k in tensors if k.endswith(".quant_state.bitsandbytes__nf4")]:
        weight = key.removesuffix(".quant_state.bitsandbytes__nf4")
        q = json.loads(bytes(tensors.pop(key).tolist()))
        assert q["quant_type"] == "nf4", q
        absmax, table, nested, scale = (tensors.pop(weight + part, None) for part in (".absmax", ".quant_map", ".nested_quant_map", ".nested_absmax"))
        if "nested_blocksize" in q:
            absmax = nested[absmax.long()] * scale.repeat_interleave(q["nested_blocksize"])[: absmax.numel()] + q["nested_offset"]
        n = q["shape"][0] * q["shape"][1]
        packed = tensors.pop(weight).flatten()
        codes = torch.stack([packed >> 4, packed & 15], 1).flatten()[:n].long()
        values = table[codes] * absmax.repeat_interleave(q["blocksize"])[:n]
        state[weight] = values.to(getattr(torch, q["dtype"])).float().view(q["shape"])
    assert not [k for k in tensors if k.endswith(parts) or "quant_state" in k], "parts of a quant-state without the rest"
    return state | {k: t.float() for k, t in tensors.items()}


def phi(name, state):
    settings = json.load(open(os.path.join(folder(name), "config.json")))
    q = settings.pop("quantization_config")
    assert q["quant_method"] == "bitsandbytes" and q["load_in_4bit"] and q["bnb_4bit_quant_type"] == "nf4", q
    m = transformers.PhiForCausalLM(transformers.PhiConfig(**settings)).float()
    m.load_state_dict(state)  # strict: every tensor, and no other
    return m.to(device).eval()


print("torch", torch.__version__, "transformers", transformers.__version__, "peft", peft.__version__,
      "bitsandbytes", getattr(bitsandbytes, "__version__", "missing"), "on", device)
print(f"{'':44} {'difference':>10} {'limit':>8}")
for name in ("base", "quantized", "lora_quantized", "merged", "dequantized"):
    tok = AutoTokenizer.from_pretrained(folder(name))
    row(f"tokenizer of {name}: prompts that differ", sum(tok(p).input_ids != ours[f"ids.{i}"].tolist() for i, p in enumerate(prompts)), 0)
base = load("base")
compare("base in transformers", base, "base", 1e-4)
merged = load("merged")
compare("merged in transformers", merged, "merged", 1e-4)
compare("dequantized in transformers", load("dequantized"), "dequantized", 1e-4)
adapted = peft.PeftModel.from_pretrained(base, folder("lora")).eval()
moved = max(float((ours[f"lora.{i}"] - ours[f"base.{i}"]).abs().max()) for i in range(len(prompts)))
compare("adapter in PEFT on the base", adapted, "lora", 1e-4, f"it moves a logit by up to {moved:.2g}")
assert moved > 0.01, "the adapter does nothing, so that this proves nothing"
theirs, mine = adapted.merge_and_unload().state_dict(), merged.state_dict()
assert theirs.keys() == mine.keys()
off = sum(int((theirs[k].half() != mine[k].half()).sum()) for k in mine) / sum(t.numel() for t in mine.values())
row("merged by PEFT: share of weights that differ", off, 1e-3)
for name in ("quantized", "lora_quantized"):
    state = decode(name)
    compare(f"{name} by bitsandbytes' names", phi(name, state), name, 1e-4)
    if name == "quantized":
        plain = load_file(os.path.join(folder("dequantized"), "model.safetensors"))
        assert plain.keys() == state.keys()
        row("dequantized weights that differ", sum(int((plain[k].float() != state[k]).sum()) for k in plain), 0)
    if bitsandbytes:
        compare(f"{name} in transformers + bitsandbytes", load(name, torch.float16), name, 5e-2, "fp16")
if not bitsandbytes:
    print("bitsandbytes is missing: whether it loads the 4-bit folders was not checked, only that their names and states decode")
print("ok" if not failed else f"{failed} FAILED")
sys.exit(failed > 0)
