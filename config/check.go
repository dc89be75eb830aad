package config

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// check reports every value that cannot work, with what is allowed instead. Where two keys clash it names both.
func (c *Config) check(workspace string, report func(allowed string, keys ...string)) {
	r := rules{report}
	r.oneOf("device", c.Device, "auto", "cpu", "cuda")
	c.checkModel(r)
	c.checkPaths(workspace, r)
	r.that("quantization.load_in_4bit", c.Quantization.LoadIn4Bit, "true; both quantized variants are 4-bit")
	r.oneOf("quantization.quant_type", c.Quantization.QuantType, "nf4")
	r.oneOf("quantization.compute_dtype", c.Quantization.ComputeDType, "float16", "bfloat16", "float32")
	c.checkLoRA(r)
	c.checkDataset(r)
	c.checkPrompt(r)
	c.checkTraining(r)
	c.checkEvaluation(r)
	c.checkUpload(workspace, r)
	r.count("history.keep", c.History.Keep, 0, 10_000)
	r.count("worker.idle_minutes", c.Worker.IdleMinutes, 0, 1_000_000)
	r.oneOf("workbench.theme", c.Workbench.Theme, "auto", "dark", "light")
	r.oneOf("workbench.notify", c.Workbench.Notify, "bell", "osc9", "off")
}

func (c *Config) checkModel(r rules) {
	m := c.Model
	switch m.Source() {
	case Hub:
		r.that("model.name", hubID(m.Name), `a hub id as in "microsoft/phi-2", a folder beginning with /, ./ or ../, or "embedded"`)
		r.that("model.revision", m.Revision == "" || hubRevision(m.Revision), `a branch, tag or commit, or "" for the default branch`)
	default:
		r.path("model.name", m.Name)
		r.that("model.revision", m.Revision == "", `"", because only a model of the hub has revisions`)
	}
}

func (c *Config) checkLoRA(r rules) {
	l := c.LoRA
	r.count("lora.r", l.R, 1, 4096)
	r.that("lora.alpha", l.Alpha > 0 && l.Alpha <= 1e6, "a number above 0, up to 1e6")
	r.that("lora.dropout", l.Dropout >= 0 && l.Dropout < 1, "a number from 0 to below 1")
	r.that("lora.target_modules", len(l.TargetModules) > 0, "at least one of "+quotedList(TargetModules))
	for i, t := range l.TargetModules {
		key := fmt.Sprintf("lora.target_modules[%d]", i)
		r.oneOf(key, t, TargetModules...)
		r.that(key, !slices.Contains(l.TargetModules[:i], t), "every module once")
	}
	r.oneOf("lora.base", l.Base, "fp16", "nf4")
	r.oneOf("lora.merge", l.Merge, "fp16", "dequantized")
}

func (c *Config) checkDataset(r rules) {
	d := c.Dataset
	if d.Local() {
		r.path("dataset.name", d.Name)
		r.that("dataset.revision", d.Revision == "", `"", because only a dataset of the hub has revisions`)
	} else {
		r.that("dataset.name", hubID(d.Name), `a hub id as in "databricks/databricks-dolly-15k", or a file ending in .jsonl or .parquet`)
		r.that("dataset.revision", d.Revision == "" || hubRevision(d.Revision), `a branch, tag or commit, or "" for the default branch`)
	}
	r.count("dataset.num_samples", d.NumSamples, 0, 1_000_000_000)
	r.count("dataset.held_out", d.HeldOut, 0, 1_000_000)
	if d.HeldOutFile != "" {
		r.that("dataset.held_out_file", rowsFile(d.HeldOutFile), `a file ending in .jsonl or .parquet, or "" to take the rows from the dataset`)
		r.path("dataset.held_out_file", d.HeldOutFile)
	}
	r.count("dataset.max_length", d.MaxLength, 2, 1_000_000)
	r.oneOf("dataset.padding", d.Padding, "max_length", "longest")
	r.oneOf("dataset.labels", d.Labels, "all", "seed", "response")
}

var placeholder = regexp.MustCompile(`\{[A-Za-z_]+\}`)

func (c *Config) checkPrompt(r rules) {
	p := c.Prompt
	r.that("prompt.template", strings.Count(p.Template, "{instruction}") == 1, "a text with {instruction} in it once, and {context} where the context goes")
	r.that("prompt.template", strings.Count(p.Template, "{context}") <= 1, "a text with {context} in it once at most")
	for _, name := range placeholder.FindAllString(p.Template, -1) {
		r.that("prompt.template", name == "{instruction}" || name == "{context}", "the placeholders {instruction} and {context} only, not "+name+"; the response follows the template")
	}
	r.that("prompt.context", strings.Count(p.Context, "{context}") == 1, "a text with {context} in it once")
	for _, name := range placeholder.FindAllString(p.Context, -1) {
		r.that("prompt.context", name == "{context}", "the placeholder {context} only, not "+name)
	}
}

func (c *Config) checkTraining(r rules) {
	t := c.Training
	r.that("training.num_epochs", t.NumEpochs > 0 && t.NumEpochs <= 10_000, "a number above 0, up to 10000")
	r.count("training.batch_size", t.BatchSize, 1, 65_536)
	r.that("training.learning_rate", t.LearningRate > 0 && t.LearningRate <= 1, "a number above 0, up to 1; LoRA usually takes 1e-5 to 1e-2")
	r.count("training.gradient_accumulation_steps", t.GradientAccumulationSteps, 1, 65_536)
	r.count("training.warmup_steps", t.WarmupSteps, 0, 1_000_000_000)
	r.that("training.max_grad_norm", t.MaxGradNorm >= 0 && t.MaxGradNorm <= 1e6, "a number from 0 (no clipping) to 1e6")
	r.that("training.weight_decay", t.WeightDecay >= 0 && t.WeightDecay <= 1, "a number from 0 to 1")
	r.that("training.adam_beta1", t.AdamBeta1 >= 0 && t.AdamBeta1 < 1, "a number from 0 to below 1")
	r.that("training.adam_beta2", t.AdamBeta2 >= 0 && t.AdamBeta2 < 1, "a number from 0 to below 1")
	r.that("training.adam_epsilon", t.AdamEpsilon > 0 && t.AdamEpsilon <= 1, "a number above 0, up to 1")
	r.oneOf("training.optim", t.Optim, "paged_adamw_8bit", "adamw")
	r.oneOf("training.schedule", t.Schedule, "linear", "cosine", "constant")
	r.oneOf("training.loss_per", t.LossPer, "token", "micro_batch")
	r.oneOf("training.save_strategy", t.SaveStrategy, "no", "steps")
	r.count("training.save_steps", t.SaveSteps, 1, 1_000_000_000)
}

func (c *Config) checkEvaluation(r rules) {
	e := c.Evaluation
	for i, p := range e.TestPrompts {
		r.that(fmt.Sprintf("evaluation.test_prompts[%d]", i), strings.TrimSpace(p) != "", "a text that is not empty")
	}
	r.count("evaluation.max_new_tokens", e.MaxNewTokens, 1, 1_000_000)
	r.that("evaluation.temperature", e.Temperature >= 0 && e.Temperature <= 100, "a number from 0 (greedy) to 100")
	r.count("evaluation.top_k", e.TopK, 0, 10_000_000)
	r.that("evaluation.top_p", e.TopP > 0 && e.TopP <= 1, "a number above 0, up to 1 (all tokens)")
	r.that("evaluation.repetition_penalty", e.RepetitionPenalty > 0 && e.RepetitionPenalty <= 100, "a number above 0, up to 100; 1 is no penalty")
	r.count("evaluation.batch", e.Batch, 1, 65_536)
}

// named is a key and its value.
type named struct{ key, path string }

func (c *Config) variantPaths() []named {
	p := c.Paths
	return []named{{"paths.base", p.Base}, {"paths.quantized", p.Quantized}, {"paths.lora", p.LoRA}, {"paths.lora_quantized", p.LoRAQuantized}}
}

// checkPaths keeps what the pipeline replaces apart from each other and from what it reads.
func (c *Config) checkPaths(workspace string, r rules) {
	written := append(c.variantPaths(), named{"paths.results", c.Paths.Results})
	for _, w := range written {
		if !r.path(w.key, w.path) {
			return
		}
	}
	state, file := resolve(workspace, ".quartet"), resolve(workspace, "config.toml")
	for i, w := range written {
		at := resolve(workspace, w.path)
		r.that(w.key, !holds(at, state) && !holds(state, at) && at != file, "a folder that is not the workspace, above it, its config.toml or in its .quartet")
		for _, other := range written[:i] {
			there := resolve(workspace, other.path)
			r.apart(w.key, other.key, at, there)
		}
	}
	read := []named{{"dataset.held_out_file", c.Dataset.HeldOutFile}}
	if c.Model.Source() == Folder {
		read = append(read, named{"model.name", c.Model.Name})
	}
	if c.Dataset.Local() {
		read = append(read, named{"dataset.name", c.Dataset.Name})
	}
	for _, in := range read {
		if in.path == "" {
			continue
		}
		from := resolve(workspace, in.path)
		for _, w := range written {
			at := resolve(workspace, w.path)
			r.apart(in.key, w.key, from, at)
		}
	}
}

func (c *Config) checkUpload(workspace string, r rules) {
	up := c.Upload
	all := []named{{"upload.base", up.Base}, {"upload.quantized", up.Quantized}, {"upload.lora", up.LoRA}, {"upload.lora_quantized", up.LoRAQuantized}}
	for i, u := range all {
		if u.path == "" {
			continue
		}
		scheme, rest, _ := strings.Cut(u.path, "://")
		ok := rest != "" && strings.TrimSpace(u.path) == u.path && !strings.ContainsFunc(u.path, func(c rune) bool { return c < ' ' || c == 0x7f })
		switch scheme {
		case "hf":
			ok = ok && hubID(rest)
		case "s3", "gdrive", "zip":
		default:
			ok = false
		}
		r.that(u.key, ok, `hf://org/name, s3://bucket/prefix, gdrive://folder or zip://path, or "" for nowhere`)
		for _, other := range all[:i] {
			if other.path == u.path {
				r.report("a place of its own for each variant", u.key, other.key)
			}
		}
		if ok && scheme == "zip" {
			for _, w := range c.variantPaths() {
				r.apart(u.key, w.key, resolve(workspace, rest), resolve(workspace, w.path))
			}
		}
	}
}

// rules words the common checks.
type rules struct {
	report func(allowed string, keys ...string)
}

func (r rules) that(key string, ok bool, allowed string) {
	if !ok {
		r.report(allowed, key)
	}
}

func (r rules) count(key string, n, low, high int) {
	r.that(key, n >= low && n <= high, "a whole number from "+strconv.Itoa(low)+" to "+strconv.Itoa(high))
}

func (r rules) oneOf(key, value string, allowed ...string) {
	r.that(key, slices.Contains(allowed, value), quotedList(allowed))
}

func (r rules) path(key, path string) bool {
	ok := path != "" && strings.TrimSpace(path) == path && !strings.HasPrefix(path, "~") && !strings.ContainsFunc(path, func(c rune) bool { return c < ' ' || c == 0x7f })
	r.that(key, ok, "a path, absolute or relative to the workspace, without ~, control characters or spaces around it")
	return ok
}

// apart keeps two absolute paths from coinciding or holding one another.
func (r rules) apart(key, other, a, b string) {
	if holds(a, b) || holds(b, a) {
		r.report(fmt.Sprintf("paths that keep %s and %s apart; neither may hold the other", key, other), key, other)
	}
}

// quotedList is `"a", "b" or "c"`.
func quotedList(words []string) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(strconv.Quote(w))
	}
	return b.String()
}
