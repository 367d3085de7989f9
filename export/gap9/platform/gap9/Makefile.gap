# The program of the board by the SDK's older rules, from the folder of the export:
#   make -f platform/gap9/Makefile.gap clean all run
APP = tinymyo
APP_SRCS = platform/gap9/main.c $(wildcard src/*.c)
APP_CFLAGS = -O3 -DGAP9 -Isrc
READFS_FILES = $(CURDIR)/weights.bin $(CURDIR)/test_vectors/vectors.bin

include $(RULES_DIR)/pmsis_rules.mk
