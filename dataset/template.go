package dataset

import (
	"errors"
	"strings"
)

// Template makes a row the prompt that the response follows.
type Template struct {
	Prompt  string // holds {instruction}, and {context} where the context goes
	Context string // what takes the place of {context} for a row that has one; holds {context}
}

// Render is the prompt of a row. Braces in the row's own text are left as they are.
func (t Template) Render(r Row) string {
	context := ""
	if r.Context != "" {
		context = strings.NewReplacer("{context}", r.Context).Replace(t.Context)
	}
	return strings.NewReplacer("{instruction}", r.Instruction, "{context}", context).Replace(t.Prompt)
}

// Validate reports a template without the places for the row's text.
func (t Template) Validate() error {
	switch {
	case !strings.Contains(t.Prompt, "{instruction}"):
		return errors.New("the prompt template lacks {instruction}")
	case strings.Contains(t.Prompt, "{context}") != strings.Contains(t.Context, "{context}"):
		return errors.New("{context} must stand in both the prompt template and the context template, or in neither")
	}
	return nil
}
