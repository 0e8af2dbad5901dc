"""The words that documents are made of; each is one the model can read.

Names, things and topics stand in lists of their own, so that a query says which role a word has.
"""

COMPANIES = (
    "Acme Borealis Cobalt Delta Ember Falcon Granite Harbor Indigo Jasper Keystone Lumen Meridian "
    "Nimbus Orchid Pioneer Quartz Redwood Summit Tundra Umbra Vertex Willow Xenon Yonder Zephyr "
    "Atlas Beacon Cedar Dune Echo Fjord Glacier Horizon Juniper Kestrel Lotus Maple Nova Onyx"
).split()

PEOPLE = (
    "Ada Boris Clara Daniel Elena Felix Greta Hugo Irene Jonas Karin Leon Marta Nils Olga Pablo "
    "Quinn Rosa Simon Tara Ugo Vera Wanda Xavier Yusuf Zoe Amir Bella Cyrus Dora Emil Flora "
    "Gustav Hanna Ivan Julia Kofi Lydia Milan Nadia"
).split()

PRODUCTS = (
    "lamp desk chair notebook printer cable monitor keyboard tablet camera bottle jacket helmet "
    "ladder hammer drill bucket brush carpet curtain mirror shelf sofa pillow blanket kettle "
    "toaster blender spoon plate bicycle scooter tent compass whistle guitar violin piano drum "
    "candle clock globe ruler pencil stapler folder envelope magnet battery charger"
).split()

TOPICS = (
    "budget safety energy water growth hiring privacy quality travel research design logistics "
    "marketing training security climate housing education health transport farming tourism "
    "banking insurance recycling mining fishing forestry robotics software hardware networks "
    "storage payments returns deliveries complaints visitors sales revenue profit costs exports "
    "imports rainfall traffic population harvest emissions inventory"
).split()

CITIES = (
    "Paris Berlin Madrid Rome Lisbon Vienna Prague Warsaw Athens Dublin Oslo Helsinki Stockholm "
    "Zurich Brussels Budapest Sofia Cairo Nairobi Lagos Accra Tunis Delhi Mumbai Tokyo Osaka Seoul "
    "Beijing Manila Jakarta Sydney Perth Lima Bogota Quito Havana Toronto Chicago Boston Denver"
).split()

WARNINGS = (
    "stop exit danger caution parking private closed open slippery detour hospital school market "
    "library museum station airport harbour bridge tunnel elevator stairs reception kitchen "
    "laboratory workshop garden playground camping swimming"
).split()

FORMS = (
    "membership application registration feedback vacation expense repair rental visitor enrolment "
    "donation delivery inspection medical customs"
).split()

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (205, 40, 45),
    "green": (30, 140, 65),
    "blue": (35, 85, 200),
    "yellow": (240, 200, 40),
    "orange": (235, 125, 25),
    "purple": (130, 60, 165),
    "brown": (120, 75, 40),
    "grey": (130, 135, 140),
}

SHAPES = ("circle", "square", "triangle", "diamond", "hexagon", "star")

FURNITURE = "invoice from to total slide table chart bar line pie sign form name city date signed".split()
"""Words that every page of a kind has, and that say which kind it is."""

READABLE = tuple(
    sorted(
        {
            word.lower()
            for words in (COMPANIES, PEOPLE, PRODUCTS, TOPICS, CITIES, WARNINGS, FORMS, FURNITURE)
            for word in words
        }
    )
)
"""Every word that a page may show, in lower case, sorted."""
