package train

// CheckpointStep is how many steps the checkpoint in a folder has behind it, 0 where there is no checkpoint.
func CheckpointStep(dir string) (int, error) {
	f, c, err := openCheckpoint(dir)
	if f == nil || err != nil {
		return 0, err
	}
	return c.Position.Step, f.Close()
}
