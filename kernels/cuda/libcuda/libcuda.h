// quartet_libcuda_open finds the driver's library and connects the functions of names.inc to it. It returns 0, or a line of
// text that says what is missing.
const char *quartet_libcuda_open(void);
