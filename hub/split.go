package hub

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var (
	trainWord = regexp.MustCompile(`(?i)(^|[/_.-])train(ing)?([/_.-]|$)`)
	otherWord = regexp.MustCompile(`(?i)(^|[/_.-])(test(ing)?|val(id(ation)?)?|dev|eval(uation)?)([/_.-]|$)`)
	shardOf   = regexp.MustCompile(`-(\d{5})-of-(\d{5})[.-]`)
)

// trainingFiles are the files of a dataset that hold its training rows, by the names that the hub's libraries go by: those of the
// split train, all of them shards of one folder; without a split's name on any file, all files. The only file is always taken.
func trainingFiles(files []File) ([]File, error) {
	if len(files) == 1 {
		return files, nil
	}
	named := func(word *regexp.Regexp) (all []File) {
		for _, f := range files {
			if word.MatchString(f.Name) {
				all = append(all, f)
			}
		}
		return all
	}
	const remedy = "bring it with `quartet download --dataset` and put the path of a file into dataset.name"
	train := named(trainWord)
	switch {
	case len(train) > 0:
	case len(named(otherWord)) > 0:
		return nil, fmt.Errorf("none of its %d files is named as the split train: %s; %s", len(files), some(files), remedy)
	default:
		train = files
	}
	var folders []string
	for _, f := range train {
		if dir := path.Dir(f.Name); !slices.Contains(folders, dir) {
			folders = append(folders, dir)
		}
	}
	if len(folders) > 1 {
		return nil, fmt.Errorf("it has training rows in %d folders, %s, which may be different datasets; %s", len(folders), strings.Join(folders[:min(len(folders), 4)], ", "), remedy)
	}
	return train, wholeShards(train)
}

// wholeShards is an error where the names tell of more shards than there are.
func wholeShards(files []File) error {
	for _, f := range files {
		m := shardOf.FindStringSubmatch(f.Name)
		if m == nil {
			continue
		}
		of, _ := strconv.Atoi(m[2])
		there := 0
		for _, other := range files {
			if n := shardOf.FindStringSubmatch(other.Name); n != nil && n[2] == m[2] {
				there++
			}
		}
		if there != of {
			return fmt.Errorf("%d of the %d files are there that %s is one of; choose a revision that has all", there, of, f.Name)
		}
	}
	return nil
}

// some lists the first few names.
func some(files []File) string {
	const most = 4
	var names []string
	for _, f := range files[:min(len(files), most)] {
		names = append(names, f.Name)
	}
	if len(files) > most {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}
