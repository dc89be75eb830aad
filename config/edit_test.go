package config

import (
	"os"
	"strings"
	"testing"
)

func TestSetChangesOneValueAndNoOtherByte(t *testing.T) {
	text, err := os.ReadFile("../config.toml")
	if err != nil {
		t.Fatal(err)
	}
	values, err := Values("config.toml", text)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range values {
		if strings.HasPrefix(v.Text, `"`) || v.Key == "evaluation.test_prompts" {
			continue // of several lines in the file
		}
		same, err := Set("config.toml", text, v.Key, v.Text)
		if err != nil {
			t.Fatalf("%s = %s: %v", v.Key, v.Text, err)
		}
		if again, err := Values("config.toml", same); err != nil || len(again) != len(values) {
			t.Fatalf("%s: %v", v.Key, err)
		}
	}
	changed, err := Set("config.toml", text, "training.learning_rate", "1e-3")
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(string(text), "learning_rate = 5e-5", "learning_rate = 1e-3", 1); string(changed) != want {
		t.Error("more than the value has changed")
	}
}

func TestSet(t *testing.T) {
	for _, c := range []struct{ text, key, value, want string }{
		{"", "seed", "7", "seed = 7\n"},
		{"", "model.name", `a/b`, "\n[model]\nname = \"a/b\"\n"},
		{"[model] # mine\nrevision = \"x\"", "model.name", "a/b", "[model] # mine\nname = \"a/b\"\nrevision = \"x\""},
		{"[model]", "model.name", "a/b", "[model]\nname = \"a/b\"\n"},
		{"lora.r = 4 # four", "lora.r", "16", "lora.r = 16 # four"},
		{"[lora]\ntarget_modules = [\n \"fc1\", # one\n]\n", "lora.target_modules", `["fc2"]`, "[lora]\ntarget_modules = [\"fc2\"]\n"},
		{"seed = -1 # wrong", "seed", "1", "seed = 1 # wrong"},
	} {
		got, err := Set("config.toml", []byte(c.text), c.key, c.value)
		if err != nil || string(got) != c.want {
			t.Errorf("%q with %s = %s: got %q, %v, want %q", c.text, c.key, c.value, got, err, c.want)
		}
	}
	for _, c := range []struct{ text, key, value, want string }{
		{"", "training.learning_rate", "fast", "is not a value of TOML"},
		{"", "lora.r", "0", "lora.r cannot be 0"},
		{"", "seed", "1\nx = 2", "one line"},
		{"", "seed", "1 # x", ""},
		{"", "nothing", "1", "no such key"},
		{"x = 1", "seed", "1", "there is no key x"},
		{"", "model.name", `"a/b"` + "\x00", "not a value"},
	} {
		_, err := Set("config.toml", []byte(c.text), c.key, c.value)
		if c.want == "" && err == nil {
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q with %s = %s: got %v, want %q", c.text, c.key, c.value, err, c.want)
		}
	}
}

func TestKeysOfTheWorkbench(t *testing.T) {
	c, err := Parse("config.toml", []byte("[keys]\nzoom = [\"Z\", \"f11\"]\n"))
	if err != nil || len(c.Keys["zoom"]) != 2 || c.Keys["zoom"][1] != "f11" {
		t.Errorf("got %v, %v", c, err)
	}
	if _, err := Parse("config.toml", []byte("[keys]\nzoom = 3\n")); err == nil || !strings.Contains(err.Error(), "config.toml:2:8: keys.zoom is a whole number") {
		t.Errorf("got %v", err)
	}
}
