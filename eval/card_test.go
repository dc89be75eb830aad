package eval

import (
	"strings"
	"testing"
)

// card is the card of facts.
func card(t *testing.T, c CardFacts) string {
	t.Helper()
	var out strings.Builder
	if err := Card(&out, c); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func cardFacts(variant string) CardFacts {
	return CardFacts{
		Variant: variant, Repository: "org/phi-2-" + variant, Base: "microsoft/phi-2", License: "mit", Dataset: "databricks/databricks-dolly-15k",
		Results: sample(),
		Settings: map[string]any{
			"seed": 42.0, "lora.r": 8.0, "lora.target_modules": []any{"q_proj", "v_proj"}, "training.learning_rate": 5e-5, "training.optim": "paged_adamw_8bit",
			"dataset.name": "/home/someone/rows.jsonl", "dataset.held_out_file": "/home/someone/held.jsonl", "dataset.num_samples": 100.0, "dataset.revision": "",
			"quantization.quant_type": "nf4", "quantization.double_quant": true, "model": "microsoft/phi-2", "evaluation.batch": 8.0,
			"prompt.template": "\n### Instruction:\n{instruction}\n\n{context}### Response:\n", "prompt.context": "### Context:\n{context}\n\n",
		},
	}
}

func TestCardText(t *testing.T) {
	for _, variant := range []string{"base", "quantized", "lora", "lora_quantized"} {
		golden(t, "card-"+variant+".md", card(t, cardFacts(variant)))
	}
}

func TestCardOfLittle(t *testing.T) {
	text := card(t, CardFacts{Variant: "lora", Repository: "org/x"})
	for _, lacks := range []string{"base_model", "license", "datasets", "## Prompt", "## Results", "## Settings", "null", "<nil>"} {
		if strings.Contains(text, lacks) {
			t.Errorf("nothing is known, but the card has %q:\n%s", lacks, text)
		}
	}
	for _, has := range []string{"library_name: peft", "# x\n", `from_pretrained("path/to/the/base/model"`, `PeftModel.from_pretrained(model, "org/x")`} {
		if !strings.Contains(text, has) {
			t.Errorf("the card lacks %q:\n%s", has, text)
		}
	}
	facts := cardFacts("lora")
	facts.BaseRevision, facts.Settings["lora.base"] = "ef38", "nf4"
	text = card(t, facts)
	for _, has := range []string{`from_pretrained("microsoft/phi-2", revision="ef38"`, "at revision ef38", "(QLoRA)"} {
		if !strings.Contains(text, has) {
			t.Errorf("the card lacks %q:\n%s", has, text)
		}
	}
	var out strings.Builder
	if err := Card(&out, CardFacts{Variant: "merged"}); err == nil || out.Len() > 0 {
		t.Errorf("%v, wrote %q", err, out.String())
	}
}

// TestCardKeepsPathsOut looks for what only this machine has.
func TestCardKeepsPathsOut(t *testing.T) {
	for _, variant := range []string{"base", "quantized", "lora", "lora_quantized"} {
		facts := cardFacts(variant)
		facts.Results.Variants[3].Missing = "/home/someone/models is not there"
		facts.Settings["model"], facts.Settings["dataset.held_out_file"] = "/home/someone/model", "/home/someone/held.jsonl"
		if text := card(t, facts); strings.Contains(text, "someone") {
			t.Errorf("%s: a path of the machine is in the card:\n%s", variant, text)
		}
	}
}

// TestCardOfHostileText puts markup of YAML, Markdown and HTML, fences and terminal sequences wherever there is text.
func TestCardOfHostileText(t *testing.T) {
	const hostile = "x\n---\nlicense: mit\n```\n````\n<script>alert(1)</script>\x1b[31m[a](https://example.org) \"quoted\": y"
	facts := cardFacts("lora")
	facts.Base, facts.BaseRevision, facts.License, facts.Dataset, facts.Repository = hostile, hostile, hostile, hostile, "org/"+hostile
	for key := range facts.Settings {
		facts.Settings[key] = hostile
	}
	facts.Results.Machine.Processor = hostile
	for i := range facts.Results.Variants {
		facts.Results.Variants[i].Name = hostile
	}
	text := card(t, facts)
	front, rest, ok := strings.Cut(strings.TrimPrefix(text, "---\n"), "\n---\n")
	if !ok || strings.Count(front, "\n") != 9 || strings.Contains(front, "\nlicense: mit") || strings.ContainsAny(text, "\x1b") {
		t.Errorf("the front matter is\n%s", front)
	}
	fence := ""
	for line := range strings.Lines(rest) {
		ticks := line[:len(line)-len(strings.TrimLeft(line, "`"))]
		switch {
		case fence == "" && len(ticks) >= 3:
			fence = ticks
		case fence != "" && strings.TrimRight(line, "\n") == fence:
			fence = ""
		case fence == "" && (strings.Contains(line, "<script") || strings.Contains(line, "a](")):
			t.Errorf("markup in %q", line)
		}
	}
	if fence != "" {
		t.Error("a block of code does not end")
	}
}

func TestLicenseOf(t *testing.T) {
	for text, want := range map[string]string{
		"MIT License\n\nCopyright (c) Someone\n\nPermission is hereby granted, free of charge, to any person\nobtaining a copy": "mit",
		"    Apache License\n   Version 2.0, January 2004":                                                                      "apache-2.0",
		"MICROSOFT RESEARCH LICENSE TERMS":                                                                                      "",
		"":                                                                                                                      "",
	} {
		if got := LicenseOf(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}
