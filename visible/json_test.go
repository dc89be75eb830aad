package visible

import (
	"encoding/json"
	"testing"
)

func TestJSONKeepsItsMeaning(t *testing.T) {
	value := map[string]string{"a": "x\u009b31m\u202e\x7f\U000e0041 é 漢 \u200d", "\u200f": "tab\tline\n"}
	plain, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	safe := JSON(plain)
	if got := Text(string(safe)); got != string(safe) {
		t.Errorf("%q still holds what Text replaces", safe)
	}
	var back map[string]string
	if err := json.Unmarshal(safe, &back); err != nil || back["a"] != value["a"] || back["\u200f"] != value["\u200f"] {
		t.Errorf("%s reads back as %q, %v", safe, back, err)
	}
}
