"""Loads the folders that `quartet demo` wrote with the Python libraries and compares likelihoods with results.json.

    python3 scripts/check_with_transformers.py quartet-demo     # needs torch, transformers, peft; bitsandbytes where there is

The adapter is loaded by PEFT, the 4-bit folders by transformers with bitsandbytes. Without bitsandbytes their NF4 tensors
are decoded here, from the same names and quant-state that bitsandbytes reads, and put into a Phi of transformers.
"""
import json
import os
import sys

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PhiConfig, PhiForCausalLM

try:
    import bitsandbytes
except ImportError:
    bitsandbytes = None
root = sys.argv[1]
models = {v: f"{root}/models/phi-tiny-{v.replace('_', '-')}" for v in ("base", "quantized", "lora", "lora_quantized")}
device = "cuda" if torch.cuda.is_available() else "cpu"
results = json.load(open(f"{root}/results/results.json"))


def load(path, dtype=torch.float32):
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, device_map={"": device}).eval()


def decode(path):
    """A 4-bit folder as a Phi in fp32, its NF4 weights decoded as bitsandbytes does: rounded once to fp16."""
    tensors, state = load_file(f"{path}/model.safetensors"), {}
    for name, t in tensors.items():
        if ".quant_state.bitsandbytes__nf4" in name:
            weight = name.split(".quant_state")[0]
            q = json.loads(bytes(t.tolist()))
            get = lambda s: tensors[f"{weight}.{s}"]
            absmax = get("nested_quant_map")[get("absmax").long()] * get("nested_absmax").repeat_interleave(q["nested_blocksize"])[: get("absmax").numel()] + q["nested_offset"]
            codes = tensors[weight].flatten()
            codes = torch.stack([codes >> 4, codes & 15], 1).flatten()[: q["shape"][0] * q["shape"][1]].long()
            values = get("quant_map")[codes] * absmax.repeat_interleave(q["blocksize"])[: codes.numel()]
            state[weight] = values.half().float().view(q["shape"])
        elif not any(s in name for s in (".absmax", ".nested_", ".quant_map")) and t.dtype == torch.float16:
            state.setdefault(name, t.float())
    config = json.load(open(f"{path}/config.json"))
    config.pop("quantization_config")
    m = PhiForCausalLM(PhiConfig(**config)).float()
    missing, unexpected = m.load_state_dict(state, strict=False)
    assert not missing and not unexpected, (missing, unexpected)
    return m.to(device).eval()


def four_bit(path):
    return load(path, torch.float16) if bitsandbytes else decode(path)


tok = AutoTokenizer.from_pretrained(models["base"])
rows = [json.loads(x) for x in open(f"{root}/data/test.jsonl")]
byquestion = {(r["instruction"], r["context"]): r for r in rows}
loaders = dict(base=lambda: load(models["base"]), lora=lambda: PeftModel.from_pretrained(load(models["base"]), models["lora"]),
               quantized=lambda: four_bit(models["quantized"]), lora_quantized=lambda: four_bit(models["lora_quantized"]))
print("torch", torch.__version__, "device", device, "bitsandbytes", getattr(bitsandbytes, "__version__", "missing: NF4 decoded here"))
worst = 0.0
for name, make in loaders.items():
    m, nll, n, off = make(), 0.0, 0, 0.0
    for e in results["heldout"]["examples"]:
        r = byquestion[e["instruction"], e.get("context", "")]
        ctx = f"### Context:\n{r['context']}\n\n" if r["context"] else ""
        prompt = f"### Instruction:\n{r['instruction']}\n\n{ctx}### Response:\n"
        p = len(tok(prompt).input_ids)
        full = torch.tensor([tok(prompt + r["response"]).input_ids + [tok.eos_token_id]], device=device)
        with torch.no_grad():
            l = torch.nn.functional.cross_entropy(m(full).logits[0, p - 1 : -1].float(), full[0, p:], reduction="none")
        ours = next(v["nll_per_token"] for v in e["variants"] if v["variant"] == name)
        off = max(off, abs(float(l.mean()) - ours))
        nll, n = nll + float(l.sum()), n + len(l)
    ours = next(v["nll_per_token"] for v in results["variants"] if v["name"] == name)
    print(f"{name:15} NLL/token: Python {nll / n:.6f}, Quartet {ours:.6f}, difference {abs(nll / n - ours):.1e}; worst row {off:.1e}")
    worst = max(worst, abs(nll / n - ours))
limit = 2e-3 if bitsandbytes else 2e-4
print("ok" if worst <= limit else "FAILED", f"(limit {limit})")
sys.exit(worst > limit)
