package eval

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"quartet/visible"
)

// CardFacts is what a model card tells. Whatever is not known is left out of the card. Nothing of it may be secret, and no
// path of a machine comes into the card.
type CardFacts struct {
	Variant      string         // "base", "quantized", "lora" or "lora_quantized"
	Repository   string         // where the variant will be, as in "org/phi-2-lora"
	Base         string         // the base model on the hub, as in "microsoft/phi-2"; "" where it is not there
	BaseRevision string         // the base's branch, tag or commit; "" for the default branch
	License      string         // the base's licence as the hub names it, as in "mit"; "" where it is not known
	Dataset      string         // the training data on the hub, as in "databricks/databricks-dolly-15k"; "" where it is not there
	Settings     map[string]any // the run's settings by their keys in config.toml, as in Results; nil where they are not known
	Results      *Results       // the run's figures; nil where the variants were not evaluated
}

// LicenseOf is the hub's name of the licence whose text is given, "" for one that is not known here.
func LicenseOf(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	for _, known := range []struct{ words, name string }{
		{"Permission is hereby granted, free of charge, to any person obtaining a copy", "mit"},
		{"Apache License Version 2.0", "apache-2.0"},
	} {
		if strings.Contains(text, known.words) {
			return known.name
		}
	}
	return ""
}

// made is whether a variant was made by an adapter's training, and whether by quantising.
func (c CardFacts) made() (trained, quantized bool) {
	return strings.HasPrefix(c.Variant, "lora"), strings.HasSuffix(c.Variant, "quantized")
}

// Card writes the model card of a variant: Markdown whose YAML front matter the hub reads. It tells what the variant was made
// of and how, its figures beside those of the other variants, and how to load it with transformers or PEFT. A variant that is
// none of the four is an error, and so is one of w's.
func Card(w io.Writer, c CardFacts) error {
	if c.about() == "" {
		return fmt.Errorf("no variant %q; the variants are base, quantized, lora, lora_quantized", c.Variant)
	}
	var out strings.Builder
	c.frontMatter(&out)
	_, name, _ := strings.Cut(c.Repository, "/")
	fmt.Fprintf(&out, "\n# %s\n\n%s\n", markdown(name), c.about())
	c.loading(&out)
	c.prompt(&out)
	c.figures(&out)
	c.settings(&out)
	_, err := io.WriteString(w, out.String())
	return err
}

var (
	hubID      = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_./-]*$`)
	plainYAML  = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./-]*$`)
	wordOfYAML = regexp.MustCompile(`(?i)^(true|false|yes|no|on|off|null|y|n)$`)
)

// yamlText is a text as a YAML value.
func yamlText(text string) string {
	if plainYAML.MatchString(text) && !wordOfYAML.MatchString(text) {
		return text
	}
	return strconv.Quote(text) // YAML and Python read Go's quotes as Go does
}

// frontMatter writes what the hub reads.
func (c CardFacts) frontMatter(out *strings.Builder) {
	trained, quantized := c.made()
	fmt.Fprint(out, "---\n")
	field := func(key, value string) {
		if value != "" {
			fmt.Fprintf(out, "%s: %s\n", key, yamlText(value))
		}
	}
	list := func(key string, values ...string) {
		fmt.Fprintf(out, "%s:\n", key)
		for _, v := range values {
			fmt.Fprintf(out, "- %s\n", yamlText(v))
		}
	}
	field("base_model", c.Base)
	library, relation, tags := "transformers", "", []string{"phi"}
	if trained {
		tags = append(tags, "lora")
	}
	switch {
	case quantized:
		relation, tags = "quantized", append(tags, "4-bit", "bitsandbytes")
	case trained:
		library, relation = "peft", "adapter"
	}
	if c.Base != "" {
		field("base_model_relation", relation)
	}
	field("library_name", library)
	field("license", c.License)
	field("pipeline_tag", "text-generation")
	list("tags", tags...)
	if trained && c.Dataset != "" {
		list("datasets", c.Dataset)
	}
	fmt.Fprint(out, "---\n")
}

// about is a paragraph on what the variant is.
func (c CardFacts) about() string {
	base, data := "a base model", "data that is not on the hub"
	if c.Base != "" {
		base = link("", c.Base)
		if c.BaseRevision != "" {
			base += " at revision " + markdown(c.BaseRevision)
		}
	}
	if c.Dataset != "" {
		data = link("datasets/", c.Dataset)
	}
	if n, ok := c.Settings["dataset.num_samples"]; ok && settingText(n) != "0" {
		data = fmt.Sprintf("%s rows of %s", markdown(settingText(n)), data)
	}
	if kind, ok := c.Settings["lora.base"].(string); ok && kind == "nf4" {
		data += ", with the base in 4 bits (QLoRA)"
	}
	return map[string]string{
		"base":           "The weights of " + base + ", unchanged, as safetensors.",
		"quantized":      "The weights of " + base + " in 4 bits (NF4), in the layout of bitsandbytes.",
		"lora":           "A LoRA adapter for " + base + ", trained on " + data + ".",
		"lora_quantized": "The weights of " + base + " with a LoRA adapter merged into them, which was trained on " + data + ", then quantised to 4 bits (NF4) in the layout of bitsandbytes.",
	}[c.Variant]
}

// link is the id of a model or dataset of the hub with a link to its page, in a folder of the hub's pages.
func link(folder, id string) string {
	if !hubID.MatchString(id) {
		return markdown(id)
	}
	return "[" + markdown(id) + "](https://huggingface.co/" + folder + id + ")"
}

// loading writes the lines of Python that load the variant.
func (c CardFacts) loading(out *strings.Builder) {
	trained, quantized := c.made()
	adapter := trained && !quantized
	var lines []string
	packages := "transformers accelerate"
	if quantized {
		packages += " bitsandbytes"
	}
	if adapter {
		packages += " peft"
		lines = append(lines, "from peft import PeftModel")
	}
	lines = append(lines, "from transformers import AutoModelForCausalLM, AutoTokenizer", "")
	weights, revision := c.Repository, ""
	if adapter {
		weights = c.Base
		if weights == "" {
			weights = "path/to/the/base/model"
		}
		if c.BaseRevision != "" {
			revision = ", revision=" + strconv.Quote(c.BaseRevision)
		}
	}
	lines = append(lines, fmt.Sprintf("tokenizer = AutoTokenizer.from_pretrained(%s)", strconv.Quote(c.Repository)),
		fmt.Sprintf("model = AutoModelForCausalLM.from_pretrained(%s%s, dtype=\"auto\", device_map=\"auto\")", strconv.Quote(weights), revision))
	if adapter {
		lines = append(lines, fmt.Sprintf("model = PeftModel.from_pretrained(model, %s)", strconv.Quote(c.Repository)))
	}
	if prompt, ok := c.Settings["prompt.template"].(string); ok {
		prompt = strings.NewReplacer("{instruction}", "What is the capital of France?", "{context}", "").Replace(prompt)
		lines = append(lines, "", "prompt = "+strconv.Quote(prompt), "inputs = tokenizer(prompt, return_tensors=\"pt\").to(model.device)",
			"answer = model.generate(**inputs, max_new_tokens=64)", "print(tokenizer.decode(answer[0, inputs.input_ids.shape[1]:], skip_special_tokens=True))")
	}
	fmt.Fprintf(out, "\n## How to load it\n\n%s\n%s", fenced("pip install "+packages, "sh"), fenced(strings.Join(lines, "\n"), "python"))
}

// prompt writes the form of a prompt.
func (c CardFacts) prompt(out *strings.Builder) {
	template, ok := c.Settings["prompt.template"].(string)
	if !ok {
		return
	}
	fmt.Fprintf(out, "\n## Prompt\n\n%s", fenced(template, "text"))
	if context, ok := c.Settings["prompt.context"].(string); ok && context != "" && strings.Contains(template, "{context}") {
		fmt.Fprintf(out, "\nwhere `{context}` is empty, or with a context:\n\n%s", fenced(context, "text"))
	}
}

// figures writes the table of the four variants and what its figures mean.
func (c CardFacts) figures(out *strings.Builder) {
	r := c.Results
	if r == nil {
		return
	}
	fmt.Fprintf(out, "\n## Results\n\n%s\n", r.MarkdownTable())
	if r.HeldOut.Rows > 0 {
		fmt.Fprintf(out, "Quality is that on %d held-out rows (%d tokens of reference answers), which training never saw. ", r.HeldOut.Rows, r.HeldOut.ResponseTokens)
	}
	fmt.Fprint(out, "The best of a row is bold; timings within 3 % of it are equally good. ")
	if v := r.Variant("lora"); v != nil && v.AdapterBytes > 0 {
		fmt.Fprintf(out, "The adapter needs its base: alone it is %s on disk. ", formatBytes(v.AdapterBytes))
	}
	fmt.Fprintf(out, "Measured on %s.\n", markdown(r.Machine.String()))
}

var backticks = regexp.MustCompile("`{3,}")

// fenced is a block of code, between fences longer than any inside.
func fenced(text, language string) string {
	text = visible.Text(text)
	fence := "```"
	for _, inside := range backticks.FindAllString(text, -1) {
		if len(inside) >= len(fence) {
			fence = inside + "`"
		}
	}
	return fence + language + "\n" + strings.TrimRight(text, "\n") + "\n" + fence + "\n"
}

// settings writes the settings that made the variant. Those that may be paths of a machine stay out.
func (c CardFacts) settings(out *strings.Builder) {
	trained, quantized := c.made()
	var sections []string
	if trained {
		sections = append(sections, "dataset.", "lora.", "training.")
	}
	if quantized {
		sections = append(sections, "quantization.")
	}
	keys := slices.DeleteFunc(slices.Sorted(maps.Keys(c.Settings)), func(key string) bool {
		mine := slices.ContainsFunc(sections, func(s string) bool { return strings.HasPrefix(key, s) })
		return !mine && (key != "seed" || !trained) || key == "dataset.name" || key == "dataset.held_out_file" || settingText(c.Settings[key]) == ""
	})
	if len(keys) == 0 {
		return
	}
	fmt.Fprint(out, "\n## Settings\n\n| setting | value |\n|---|---|\n")
	for _, key := range keys {
		fmt.Fprintf(out, "| %s | %s |\n", markdown(key), markdown(settingText(c.Settings[key])))
	}
	if c.Results == nil || c.Results.Training == nil || !trained {
		return
	}
	if loss := c.Results.Training.Loss; len(loss) > 0 {
		fmt.Fprintf(out, "\nThe loss went from %s to %s in %d steps.\n", lossText(loss[0]), lossText(loss[len(loss)-1]), len(loss))
	}
}
