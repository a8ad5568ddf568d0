package proto

import (
	"fmt"
	"testing"
)

// However many outputs there are, what the process has once is in its record.
func TestStatusKeepsTheFiguresOfTheProcess(t *testing.T) {
	s := &ProcessStatus{Version: StatusVersion, Program: "p", Instance: "i"}
	for i := range 2 * MaxStatusFigures {
		s.Figures = append(s.Figures, StatusFigure{Name: "a", Labels: map[string]string{"output": fmt.Sprint(i)}})
	}
	s.Figures = append(s.Figures, StatusFigure{Name: "process"})
	data, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := DecodeStatus(data)
	if err != nil || len(got.Figures) != MaxStatusFigures || got.Figures[0].Name != "process" || s.Figures[0].Name != "a" {
		t.Errorf("%d figures, %v", len(got.Figures), err)
	}
}
