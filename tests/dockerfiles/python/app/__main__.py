import json
import os
import sys

from greet import greet

with open(sys.argv[2]) as file:
    name = json.load(file)["name"]
print(greet(name), os.getcwd(), os.environ["APP_HOME"], os.getuid())
