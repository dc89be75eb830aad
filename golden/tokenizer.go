package golden

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"quartet/kernels"
	"quartet/tokenizer"
)

// tokenizers counts the recorded texts that encode to other ids, and the ids that decode to another text.
func tokenizers(_ kernels.Backend, dir string) ([]Check, error) {
	dir = filepath.Join(dir, "tokenizer")
	data, err := os.ReadFile(filepath.Join(dir, "tokenizer_cases.json"))
	if err != nil {
		return nil, err
	}
	var cases []struct {
		Text    string  `json:"text"`
		IDs     []int32 `json:"ids"`
		Decoded string  `json:"decoded"`
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		return nil, fmt.Errorf("tokenizer_cases.json: %w", err)
	}
	t, err := tokenizer.Load(dir)
	if err != nil {
		return nil, err
	}
	var encode, decode int
	for _, c := range cases {
		if !slices.Equal(t.Encode(c.Text), c.IDs) {
			encode++
		}
		if t.Decode(c.IDs, false) != c.Decoded {
			decode++
		}
	}
	return []Check{Measure("tokenizer/encode", float64(encode), 0), Measure("tokenizer/decode", float64(decode), 0)}, nil
}
