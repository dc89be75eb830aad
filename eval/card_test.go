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
