package model_test

import (
	"context"
	"errors"
	"reflect"
	"testing"

	"quartet/model"
	"quartet/model/modeltest"
)

var prompts = [][]int32{{1, 2, 3}, {4}, {5, 6, 7, 8, 9}, {10, 11}}

func generate(t *testing.T, m *model.Model, o model.GenerateOptions) [][]int32 {
	t.Helper()
	g, err := m.Generate(context.Background(), prompts, o)
	if err != nil {
		t.Fatal(err)
	}
	var ids [][]int32
	for _, one := range g {
		ids = append(ids, one.IDs)
	}
	return ids
}

func TestBatchedAnswersEqualSingleOnes(t *testing.T) {
	m := load(t, modeltest.Shape{})
	for _, s := range []model.Sampling{{}, {Temperature: 0.8, TopK: 20, Seed: 4}} {
		one := generate(t, m, model.GenerateOptions{MaxNew: 9, Batch: 1, Sampling: s})
		for _, batch := range []int{2, 3, 50} {
			if many := generate(t, m, model.GenerateOptions{MaxNew: 9, Batch: batch, Sampling: s}); !reflect.DeepEqual(one, many) {
				t.Errorf("%+v: %v one at a time, %v in batches of %d", s, one, many, batch)
			}
		}
	}
}

func TestStopTokensEndAnAnswerAndStayOut(t *testing.T) {
	m := load(t, modeltest.Shape{})
	free := generate(t, m, model.GenerateOptions{MaxNew: 6})
	stop := free[0][2]
	g, err := m.Generate(context.Background(), prompts[:1], model.GenerateOptions{MaxNew: 6, Stop: []int32{stop}})
	if err != nil {
		t.Fatal(err)
	}
	at := 0
	for free[0][at] != stop {
		at++
	}
	if !g[0].Stopped || !reflect.DeepEqual(g[0].IDs, free[0][:at]) && at > 0 {
		t.Errorf("stopped %v with %v; without the stop token it is %v", g[0].Stopped, g[0].IDs, free[0])
	}
}

func TestOnlyAllowedTokensAreProduced(t *testing.T) {
	m := load(t, modeltest.Shape{})
	for _, s := range []model.Sampling{{}, {Temperature: 3, Seed: 1}} {
		for _, ids := range generate(t, m, model.GenerateOptions{MaxNew: 12, Batch: 4, Sampling: s, Allowed: func(id int32) bool { return id%7 == 3 }}) {
			for _, id := range ids {
				if id%7 != 3 {
					t.Errorf("%+v produced token %d", s, id)
				}
			}
		}
	}
}

func TestCancelKeepsWhatWasAnswered(t *testing.T) {
	m := load(t, modeltest.Shape{})
	ctx, cancel := context.WithCancel(context.Background())
	told := 0
	g, err := m.Generate(ctx, prompts[:1], model.GenerateOptions{MaxNew: 12, OnToken: func(int, int32) bool {
		if told++; told == 3 {
			cancel()
		}
		return true
	}})
	if !errors.Is(err, context.Canceled) || len(g[0].IDs) != 3 {
		t.Errorf("cancelled after three tokens: %v, %v", g[0].IDs, err)
	}
}

func TestBadInputIsAnError(t *testing.T) {
	m := load(t, modeltest.Shape{})
	for want, run := range map[string]func() error{
		"generate: prompt 1 has no tokens": func() error {
			_, err := m.Generate(context.Background(), [][]int32{{1}, {}}, model.GenerateOptions{MaxNew: 1})
			return err
		},
		"run the model: token id 61 is outside the vocabulary of 61": func() error {
			_, err := m.Generate(context.Background(), [][]int32{{61}}, model.GenerateOptions{MaxNew: 1})
			return err
		},
		"reserve a cache of 65 tokens: max_position_embeddings is 64; shorten the prompt or lower max_new_tokens": func() error {
			_, err := m.Generate(context.Background(), [][]int32{{1}}, model.GenerateOptions{MaxNew: 64})
			return err
		},
	} {
		if err := run(); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
