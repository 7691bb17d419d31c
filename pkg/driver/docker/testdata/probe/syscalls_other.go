//go:build !amd64

package main

func amd64Calls() []call { return nil }

const x32 = "x32"

func x32Call(table) {}

func x32Child() {}
