"""The Python stack on this GPU, at phi-2's size with random weights: what `quartet bench` and `quartet golden` are held against.

    python3 scripts/gpu_reference.py DIR     # needs torch, transformers, peft; 4-bit rows where bitsandbytes is

Writes DIR/phi2, a random fp16 model in Hugging Face's layout, and DIR/golden/phi, its hidden states and logits in fp32 and fp16,
each unless it is there; then prints a line of JSON for each speed.
"""
import gc
import json
import os
import sys
import time

os.environ["HF_HUB_OFFLINE"] = "1"
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PhiConfig, PhiForCausalLM

root = sys.argv[1]
folder, golden = f"{root}/phi2", f"{root}/golden/phi"
PROMPT, NEW, VOCABULARY = 32, 100, 51200


def report(name, tokens, seconds, **more):
    print(json.dumps({"name": name, "tokens_per_second": round(tokens / seconds, 1), **more}), flush=True)


def seconds(work, runs, warm=2):
    taken = []
    for run in range(warm + runs):
        torch.cuda.synchronize()
        start = time.perf_counter()
        work()
        torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return sorted(taken[warm:])[runs // 2]


def load(dtype):
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, device_map={"": 0}).eval()


def write_model():
    torch.manual_seed(7)
    shape = PhiConfig(vocab_size=VOCABULARY, hidden_size=2560, intermediate_size=10240, num_hidden_layers=32, num_attention_heads=32, hidden_act="gelu_new",
                      partial_rotary_factor=0.4, max_position_embeddings=2048, resid_pdrop=0.1, tie_word_embeddings=False, bos_token_id=50256, eos_token_id=50256)
    torch.set_default_dtype(torch.float16)
    with torch.device("cuda"):
        model = PhiForCausalLM(shape)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)


def write_golden():
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(11)
    ids = torch.randint(0, VOCABULARY, (2, 96), device="cuda")
    out = {"input_ids": ids.cpu(), "labels": ids.cpu()}
    model = load(torch.float32)
    with torch.no_grad():
        exact = model(ids, labels=ids, output_hidden_states=True)
        for i, h in enumerate(exact.hidden_states):
            out[f"hidden_{i}"] = h.cpu().contiguous()
        out["logits_fp32"], out["loss_fp32"] = exact.logits.cpu(), exact.loss.reshape(1).cpu()
        model = model.half()
        out["logits_fp16"] = model(ids).logits.float().cpu()
    os.makedirs(golden)
    save_file(out, f"{golden}/forward.safetensors")
    os.symlink("../../phi2", f"{golden}/base")


def train(model, name, rows, micro):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimiser, scaler = torch.optim.AdamW(parameters, lr=5e-5, fused=True), torch.amp.GradScaler("cuda")
    torch.cuda.reset_peak_memory_stats()

    def step():
        for _ in range(micro):
            ids = torch.randint(0, VOCABULARY, (rows, 256), device="cuda")
            with torch.autocast("cuda", dtype=torch.float16):
                loss = model(input_ids=ids, labels=ids).loss / micro
            scaler.scale(loss).backward()
        scaler.unscale_(optimiser)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        scaler.step(optimiser)
        scaler.update()
        optimiser.zero_grad(set_to_none=True)

    report(name, rows * micro * 256, seconds(step, 6), device_memory_bytes=torch.cuda.max_memory_allocated())


def generate(model, name):
    ids = torch.randint(0, VOCABULARY, (1, PROMPT), device="cuda")
    with torch.no_grad():
        run = lambda n: model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n, min_new_tokens=n, do_sample=False, pad_token_id=50256)
        report(name, NEW, seconds(lambda: run(NEW + 1), 3, warm=1) - seconds(lambda: run(1), 3, warm=1))


def measure(quantised):
    lora = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], lora_dropout=0.05, task_type="CAUSAL_LM")
    start = time.perf_counter()
    if quantised:
        from transformers import BitsAndBytesConfig
        bits = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_use_double_quant=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float16)
        model = AutoModelForCausalLM.from_pretrained(folder, quantization_config=bits, dtype=torch.float16, device_map={"": 0}).eval()
    else:
        model = load(torch.float16)
    torch.cuda.synchronize()
    print(json.dumps({"name": "load_nf4" if quantised else "load_fp16", "seconds": round(time.perf_counter() - start, 2)}), flush=True)
    dtype = "nf4" if quantised else "fp16"
    generate(model, f"decode_{dtype}")
    for n in (64, 512, 1024):
        ids = torch.randint(0, VOCABULARY, (1, n), device="cuda")
        with torch.no_grad():
            report(f"prefill{n}_{dtype}", n, seconds(lambda: model(ids, logits_to_keep=1), 5))
    model = get_peft_model(model, lora).train()
    q = "q" if quantised else ""
    train(model, q + "lora_step", 1, 4)
    train(model, q + "lora_step16", 16, 1)


if __name__ == "__main__":
    os.makedirs(root, exist_ok=True)
    for made, write in ((f"{folder}/config.json", write_model), (golden, write_golden)):
        if not os.path.exists(made):
            write()
            gc.collect()
            torch.cuda.empty_cache()
    measure(False)
    gc.collect()
    torch.cuda.empty_cache()
    try:
        import bitsandbytes  # noqa: F401
    except ImportError:
        print("bitsandbytes is not installed: no 4-bit rows", file=sys.stderr)
    else:
        measure(True)
