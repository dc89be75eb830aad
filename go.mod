module quartet

go 1.26
